import random
from itertools import islice

import numpy as np
import pytest
import soundfile
import torch

from todm.errors import TodmError
from todm.speech import batches as batches_module
from todm.speech.augment import Augmentation, mask, perturb, reverberate
from todm.speech.batches import evaluation_batches, fast_fbank, train_batches
from todm.speech.corpus import Corpus, corpus_from_folder, open_cuts, samples_of, text_of
from todm.speech.features import SAMPLE_RATE, TAIL, fbank, load_audio
from todm.speech.tokens import Tokens

OFF = Augmentation(speeds=[1.0], gain=0, noise=0, tail=0, frequency_masks=0, time_masks=0)
NAMES = ["a", "b", "c"]


def tone(seconds: float, rng: np.random.Generator, rate: int = SAMPLE_RATE) -> np.ndarray:
    t = np.arange(round(seconds * rate)) / rate
    return 0.3 * np.sin(2 * np.pi * rng.uniform(100, 900) * t) + 0.01 * rng.standard_normal(len(t))


@pytest.fixture(scope="module")
def cuts(tmp_path_factory):
    """Forty recordings of 0.4 to 2.4 s, of three formats."""
    folder, rng, lines = tmp_path_factory.mktemp("corpus"), np.random.default_rng(0), []
    for i in range(40):
        name, rate = f"{i:02d}.{('wav', 'flac')[i % 2]}", (16_000, 16_000, 8_000)[i % 3]
        audio = tone(0.4 + 0.05 * i, rng, rate)
        soundfile.write(folder / name, np.stack([audio, audio], axis=1) if i % 5 == 0 else audio, rate)
        lines.append(f"{name}\t{' '.join(rng.choice(NAMES, 1 + i // 8))}\n")
    (folder / "table.tsv").write_text("".join(lines))
    return corpus_from_folder(folder, folder / "table.tsv")


@pytest.fixture(scope="module")
def tokens():
    return Tokens.build("words", NAMES)


def equal(a, b) -> bool:
    tensors = ("features", "feature_lengths", "tokens", "token_lengths")
    return a.texts == b.texts and all(torch.equal(getattr(a, name), getattr(b, name)) for name in tensors)


def test_a_folder_and_a_table_make_a_corpus(cuts):
    assert len(cuts) == 40
    for cut in cuts:
        path = cut.recording.sources[0].source
        assert np.allclose(samples_of(cut), load_audio(path), atol=1e-6)
        assert text_of(cut).split()[0] in NAMES
    utterances = list(Corpus({"test": cuts}, Tokens.build("words", NAMES)).utterances("test"))
    assert [text for _, text in utterances] == [text_of(cut) for cut in cuts]


def test_batches_do_not_depend_on_start_or_workers(cuts, tokens):
    options = {"seconds_per_batch": 8.0, "seed": 3, "augment": Augmentation(), "warm_updates": 2}
    batches = list(islice(train_batches(cuts, tokens, **options, workers=0), 16))
    for start, workers in ((0, 1), (5, 0), (11, 2)):
        again = islice(train_batches(cuts, tokens, **options, start=start, workers=workers), 16 - start)
        assert all(equal(a, b) for a, b in zip(batches[start:], again, strict=True))
    other = next(train_batches(cuts, tokens, **{**options, "seed": 4}, workers=0))
    assert not equal(batches[0], other)


def test_an_utterance_never_sounds_the_same_twice(cuts, tokens):
    options = {"seconds_per_batch": 8.0, "seed": 3, "augment": vary(gain=6.0), "workers": 0}
    first, second = islice(train_batches(cuts.subset(first=1), tokens, **options), 2)
    assert first.texts == second.texts
    assert not torch.equal(first.features, second.features)


def test_what_comes_before_start_is_not_read(cuts, tokens, monkeypatch):
    read = []
    monkeypatch.setattr(batches_module, "samples_of", lambda cut: read.append(cut.id) or samples_of(cut))
    batch = next(train_batches(cuts, tokens, seconds_per_batch=8.0, seed=0, start=30, workers=0))
    assert len(read) == len(batch.texts)


def test_the_random_numbers_of_training_are_left_alone(cuts, tokens):
    def states():
        return torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()

    before = states()
    for workers in (0, 1):
        options = {"seconds_per_batch": 8.0, "seed": 0, "augment": Augmentation(), "workers": workers}
        next(train_batches(cuts, tokens, **options))
        assert states() == before


def test_an_epoch_holds_every_utterance_once_in_batches_of_the_size_asked_for(cuts, tokens):
    batches = train_batches(cuts, tokens, seconds_per_batch=8.0, seed=0, workers=0)
    orders = []
    for _ in range(2):
        epoch = []
        while len(epoch) < len(cuts):
            batch = next(batches)
            assert len(batch.texts) * batch.features.shape[1] <= 8.0 * 100 + len(batch.texts)
            assert batch.features.shape == (len(batch.texts), int(batch.feature_lengths.max()), 80)
            for row, length, ids, n, text in zip(
                batch.features,
                batch.feature_lengths,
                batch.tokens,
                batch.token_lengths,
                batch.texts,
                strict=True,
            ):
                assert (row[length:] == 0).all()
                assert tokens.decode(ids[:n].tolist()) == text
                assert (ids[n:] == 0).all()
            epoch += batch.feature_lengths.tolist()
        assert sorted(epoch) == sorted((len(samples_of(cut)) + 80) // 160 for cut in cuts)
        orders.append(epoch)
    assert orders[0] != orders[1]


def test_the_first_batches_are_short(cuts, tokens):
    options = {"seconds_per_batch": 8.0, "seed": 0, "workers": 0}
    batches = train_batches(cuts, tokens, **options, warm_updates=10, warm_seconds=1.0)
    assert max(int(batch.feature_lengths.max()) for batch in islice(batches, 10)) <= 100
    plain = train_batches(cuts, tokens, **options)
    for _ in range(5):
        assert next(batches).texts == next(plain).texts


def test_an_evaluation_hears_every_utterance_and_its_silence(cuts, tokens):
    batches = list(evaluation_batches(cuts, tokens, seconds_per_batch=15.0))
    lengths = [n for batch in batches for n in batch.feature_lengths.tolist()]
    assert len(batches) > 2
    assert lengths == sorted(lengths)
    ordered = sorted(cuts, key=lambda cut: cut.duration)
    assert [text for batch in batches for text in batch.texts] == [text_of(cut) for cut in ordered]
    rows = [row[:n] for batch in batches for row, n in zip(batch.features, batch.feature_lengths, strict=True)]
    for row, cut in zip(rows, ordered, strict=True):
        assert torch.equal(row, fbank(np.concatenate([samples_of(cut), TAIL])))


def test_training_features_are_those_of_the_device(cuts):
    silence = np.zeros(3_000, np.float32)
    for cut in list(cuts)[::7]:
        samples = np.concatenate([samples_of(cut), silence])
        difference = (fast_fbank(samples) - fbank(samples)).abs()
        assert difference.max() < 5e-3
        assert difference.mean() < 1e-4


def test_augmentation_can_be_turned_off(cuts):
    samples, rng = samples_of(cuts[7]), np.random.default_rng(0)
    assert np.array_equal(perturb(samples, OFF, rng), samples)
    features = fbank(samples)
    assert torch.equal(mask(features.clone(), OFF, rng), features)


def vary(**changes: object) -> Augmentation:
    return Augmentation(**{**{name: getattr(OFF, name) for name in OFF.__dataclass_fields__}, **changes})


def test_speed_changes_duration_and_pitch():
    samples = np.sin(2 * np.pi * 500 * np.arange(32_000) / SAMPLE_RATE).astype(np.float32)
    fast = perturb(samples, vary(speeds=[1.1]), np.random.default_rng(0))
    assert len(fast) == pytest.approx(32_000 / 1.1, abs=2)
    peak = np.abs(np.fft.rfft(fast[:16_000] * np.hanning(16_000))).argmax()
    assert peak == pytest.approx(550, abs=1)


def test_gain_noise_and_tail_stay_in_their_ranges():
    rng = np.random.default_rng(0)
    samples = tone(1.0, rng).astype(np.float32)
    power = np.mean(np.square(samples))
    gains = [20 * np.log10(perturb(samples, vary(gain=6), rng)[500] / samples[500]) for _ in range(200)]
    assert -6.01 < min(gains) < -5 < 5 < max(gains) < 6.01
    noises = [perturb(samples, vary(noise=0.5, noise_snr=(10, 20)), rng) - samples for _ in range(200)]
    ratios = [10 * np.log10(power / np.mean(np.square(noise))) for noise in noises if noise.any()]
    assert 70 < len(ratios) < 130
    assert 9.9 < min(ratios) < 11 < 19 < max(ratios) < 20.1
    tails = [perturb(samples, vary(tail=0.5), rng) for _ in range(200)]
    assert all(np.array_equal(x[:16_000], samples) and not x[16_000:].any() for x in tails)
    assert 0 <= min(map(len, tails)) - 16_000 < 400 < 7_600 < max(map(len, tails)) - 16_000 <= 8_000


def test_masks_cover_whole_bands_and_short_stretches():
    rng = np.random.default_rng(0)
    features = torch.randn(60, 80, generator=torch.Generator().manual_seed(0))
    widths, lengths = [], []
    for _ in range(200):
        changed = mask(features.clone(), vary(frequency_masks=1, frequency_width=10), rng) != features
        assert torch.equal(changed.any(0), changed.all(0))
        widths.append(int(changed.any(0).sum()))
        changed = mask(features.clone(), vary(time_masks=1, time_width=50), rng) != features
        assert torch.equal(changed.any(1), changed.all(1))
        lengths.append(int(changed.any(1).sum()))
    assert (min(widths), max(widths)) == (0, 10)
    assert (min(lengths), max(lengths)) == (0, 6)
    masked = mask(features.clone(), vary(time_masks=3, frequency_masks=3), rng)
    assert torch.equal(masked, torch.where(masked != features, features.mean(0).expand_as(features), features))


def test_a_corpus_without_utterances(cuts, tokens):
    with pytest.raises(TodmError, match="no utterances"):
        train_batches(cuts.subset(first=1).filter(lambda _: False), tokens, seconds_per_batch=8, seed=0)
    with pytest.raises(TodmError, match=r"shortest utterance, 0\.40 s"):
        train_batches(cuts, tokens, seconds_per_batch=8, seed=0, warm_updates=1, warm_seconds=0.1)


@pytest.mark.parametrize(
    ("table", "says"),
    [
        (None, "cannot read the table"), ("", "is empty"),
        ("ok.wav\tone\nok.wav\n", "line 2: write a file name"),
        ("ok.wav\tone\nno.wav\ttwo\n", "line 2: .*no.wav is not readable audio"),
        ("noise.wav\tone\n", "line 1: .*noise.wav is not readable audio"),
    ],
)  # fmt: skip
def test_a_wrong_table_is_named_with_its_line(tmp_path, table, says):
    soundfile.write(tmp_path / "ok.wav", np.zeros(400), SAMPLE_RATE)
    (tmp_path / "noise.wav").write_bytes(np.random.default_rng(0).bytes(5_000))
    if table is not None:
        (tmp_path / "t.tsv").write_text(table)
    with pytest.raises(TodmError, match=says) as caught:
        corpus_from_folder(tmp_path, tmp_path / "t.tsv")
    assert "\n" not in str(caught.value)


def test_cuts_read_from_disk_as_they_go_give_every_utterance_once_an_epoch(cuts, tokens, tmp_path):
    cuts.to_file(tmp_path / "cuts.jsonl.gz")
    (tmp_path / "shar").mkdir()
    cuts.to_shar(tmp_path / "shar", fields={"recording": "flac"}, shard_size=15)
    for path in (tmp_path / "cuts.jsonl.gz", tmp_path / "shar"):
        lazy = open_cuts(path)
        assert lazy.is_lazy
        options = {"seconds_per_batch": 8.0, "seed": 0, "warm_updates": 2, "warm_seconds": 1.0}
        some = list(islice(train_batches(lazy, tokens, **options, workers=0), 15))
        again = list(islice(train_batches(open_cuts(path), tokens, **options, start=4, workers=1), 11))
        assert all(equal(a, b) for a, b in zip(some[4:], again, strict=True))
        plain = train_batches(open_cuts(path), tokens, seconds_per_batch=8.0, seed=0, workers=0)
        for _ in range(2):
            epoch: list[str] = []
            while len(epoch) < len(cuts):
                epoch += next(plain).texts
            assert sorted(epoch) == sorted(text_of(cut) for cut in cuts)
    with pytest.raises(TodmError, match="neither a lhotse manifest"):
        open_cuts(tmp_path)


def test_what_cannot_be_read_is_left_out_and_named_until_it_is_too_much(tmp_path, tokens, capsys):
    rng, lines = np.random.default_rng(0), []
    for i in range(20):
        soundfile.write(tmp_path / f"{i:02d}.wav", tone(0.5, rng), SAMPLE_RATE)
        lines.append(f"{i:02d}.wav\ta\n")
    (tmp_path / "table.tsv").write_text("".join(lines))
    cuts = corpus_from_folder(tmp_path, tmp_path / "table.tsv")
    (tmp_path / "07.wav").write_bytes(b"no longer audio")
    options = {"seconds_per_batch": 30.0, "seed": 0, "workers": 0}
    batch = next(train_batches(cuts, tokens, **options, unreadable=0.1))
    assert (len(batch.texts), batch.log) == (19, {"unreadable": 1})
    assert "left out, as it cannot be read: 07.wav" in capsys.readouterr().err
    for i in (3, 4):
        (tmp_path / f"{i:02d}.wav").write_bytes(b"nor this")
    with pytest.raises(TodmError, match="cannot be read, the last .*mend them or raise data.batching.unreadable"):
        next(train_batches(cuts, tokens, **options, unreadable=0.1))


def test_a_room_prolongs_a_sound_by_its_decay_and_keeps_its_loudness():
    click = np.zeros(SAMPLE_RATE, np.float32)
    click[100] = 1.0
    rng = np.random.default_rng(0)
    heard = np.mean([reverberate(click, 0.4, rng) ** 2 for _ in range(100)], axis=0)
    assert np.linalg.norm(reverberate(click, 0.4, rng)) == pytest.approx(1.0, rel=1e-4)
    early, late = (heard[100 + int(t * SAMPLE_RATE) :][:800].mean() for t in (0.05, 0.25))
    assert 10 * np.log10(early / late) == pytest.approx(60 * 0.2 / 0.4, abs=2)
    assert heard[:100].max() < 1e-9
    assert heard[100 + int(0.41 * SAMPLE_RATE) :].max() < 1e-9
