import os
from pathlib import Path

import kaldi_native_fbank as knf
import numpy as np
import pytest
import soundfile
import torch
from exact_fbank import derived
from hypothesis import given, settings
from hypothesis import strategies as st

from todm.errors import TodmError
from todm.speech.features import SAMPLE_RATE, StreamingFbank, fbank, load_audio


def voice(n: int, seed: int = 0) -> np.ndarray:
    """A gliding, pulsed tone in noise: energy in every mel bin."""
    rng = np.random.default_rng(seed)
    t = np.arange(n) / SAMPLE_RATE
    pulses = np.sign(np.sin(2 * np.pi * (110 + 40 * t) * t)) * (0.6 + 0.4 * np.sin(9 * t))
    return (0.2 * pulses + 0.02 * rng.standard_normal(n)).astype(np.float32)


def test_equals_the_definition():
    samples = voice(16_123)
    ours = fbank(samples).numpy()
    assert ours.shape == (101, 80)
    assert ours.dtype == np.float32
    assert np.abs(ours - derived(samples)).max() < 1e-3


def test_equals_the_library():
    options = knf.FbankOptions()
    options.frame_opts.dither, options.frame_opts.snip_edges = 0, False
    options.mel_opts.num_bins, options.mel_opts.high_freq = 80, 7600
    samples = voice(5_000, seed=1)
    bank = knf.OnlineFbank(options)
    bank.accept_waveform(16_000, samples.tolist())
    bank.input_finished()
    theirs = np.stack([bank.get_frame(i) for i in range(bank.num_frames_ready)])
    assert np.array_equal(fbank(samples).numpy(), theirs)


def test_golden_values():
    path = Path(os.environ.get("TODM_DATA", ".")) / "../golden/fbank.npz"
    if not path.is_file():
        pytest.skip("golden fbank.npz is not beside $TODM_DATA")
    golden = np.load(path)
    for i in range(len(golden["wav_names"])):
        ours = fbank(golden[f"wav{i}.samples"]).numpy()
        assert np.abs(ours - golden[f"wav{i}.fbank"]).max() < 1e-3
        assert np.abs(ours - golden[f"wav{i}.fbank"]).mean() < 1e-5
    bank, ready = StreamingFbank(), []
    chunk = int(golden["wav0.stream_chunk_samples"])
    samples = golden["wav0.samples"]
    for start in range(0, len(samples), chunk):
        bank.accept(samples[start : start + chunk])
        ready.append(bank.ready)
    bank.finish()
    assert [*ready, bank.ready] == golden["wav0.stream_frames_ready"].tolist()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1500), st.integers(0, 9)), min_size=1, max_size=8))
def test_pieces_give_the_same_features_as_the_whole(pieces):
    samples = voice(sum(n for n, _ in pieces) + 1)
    bank, frames, start = StreamingFbank(), [], 0
    for n, wanted in pieces:
        bank.accept(samples[start : start + n])
        start += n
        frames.append(bank.pop(min(wanted, bank.ready)))
    bank.accept(samples[start:])
    bank.finish()
    frames.append(bank.pop(bank.ready))
    assert bank.ready == 0
    assert np.array_equal(np.concatenate(frames), fbank(samples).numpy())


def test_takes_tensors_and_doubles():
    samples = voice(2_000)
    assert torch.equal(fbank(torch.from_numpy(samples)), fbank(samples))
    assert torch.equal(fbank(samples.astype(np.float64)), fbank(samples))


def test_refuses_two_channels_and_other_rates():
    with pytest.raises(TodmError, match=r"\(2, 100\)"):
        fbank(np.zeros((2, 100), np.float32))
    with pytest.raises(TodmError, match="resample: features.mono_16k"):
        fbank(np.zeros(100, np.float32), 44_100)


@pytest.mark.parametrize(
    ("rate", "channels", "name"), [(8_000, 1, "a.wav"), (44_100, 2, "b.flac"), (16_000, 3, "c.ogg")]
)
def test_loads_any_rate_and_channels_as_16k_mono(tmp_path, rate, channels, name):
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(2 * rate) / rate)
    soundfile.write(tmp_path / name, np.stack([tone * (c == 0) for c in range(channels)], axis=1), rate)
    samples = load_audio(tmp_path / name)
    assert samples.dtype == np.float32
    assert len(samples) == pytest.approx(32_000, abs=200)
    spectrum = np.abs(np.fft.rfft(samples[:32_000] * np.hanning(len(samples[:32_000]))))
    assert spectrum.argmax() / 2 == pytest.approx(440, abs=2)
    assert np.abs(samples[1000:-1000]).max() == pytest.approx(0.5 / channels, rel=0.05)


def test_eight_bit_noise_is_audio(tmp_path):
    soundfile.write(tmp_path / "n.wav", np.random.default_rng(0).uniform(-1, 1, 4000), 8_000, subtype="PCM_U8")
    assert load_audio(tmp_path / "n.wav").shape == (8_000,)


def make_wrong(folder: Path) -> dict[str, Path]:
    noise = np.random.default_rng(0).integers(0, 256, 20_000, dtype=np.uint8).tobytes()
    for name in ("random.wav", "random.raw", "random.flac"):
        (folder / name).write_bytes(noise)
    soundfile.write(folder / "empty.wav", np.zeros(0), SAMPLE_RATE)
    soundfile.write(folder / "nan.wav", np.full(100, np.nan), SAMPLE_RATE, subtype="FLOAT")
    soundfile.write(folder / "slow.wav", np.zeros(100), 1_000)
    (folder / "nothing.wav").write_bytes(b"")
    return {path.name: path for path in folder.iterdir()} | {
        "missing.wav": folder / "missing.wav",
        "folder": folder,
    }


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("random.wav", "not readable audio"), ("random.raw", "not readable audio"),
        ("random.flac", "not readable audio"), ("nothing.wav", "not readable audio"),
        ("empty.wav", "no samples"), ("nan.wav", "NaN"), ("slow.wav", "1000 samples a second, too few"),
        ("missing.wav", "not a file"), ("folder", "not a file"),
    ],
)  # fmt: skip
def test_wrong_files_are_named_in_one_line(tmp_path, name, says):
    path = make_wrong(tmp_path)[name]
    with pytest.raises(TodmError, match=says) as caught:
        load_audio(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
