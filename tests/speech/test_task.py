"""A recogniser of two tunes, trained to the end in seconds: its loss, its words, and the program that streams."""

import random
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch

from todm import SearchSpace, activate, extract
from todm.export.onnx import Onnx
from todm.files import atomic_write
from todm.optim import ScaledAdam
from todm.program import eager
from todm.speech.corpus import Augmentation, Corpus, corpus_from_folder, evaluation_batches
from todm.speech.encoder import EncoderConfig, subsampled
from todm.speech.features import SAMPLE_RATE, TAIL
from todm.speech.lattice import rnnt_loss
from todm.speech.task import Batching, SpeechTask, TransducerConfig, streaming_program
from todm.speech.tokens import Tokens

TONES = {"up": (300.0, 1200.0), "down": (1200.0, 300.0)}
ENCODER = EncoderConfig(width=[24], depth=[1, 2], hidden=[16, 32], heads=[4], head_size=4, states=[4], front=16)
TAIL_ONLY = Augmentation(speeds=[1.0], gain=0, noise=0, tail=0.5, frequency_masks=0, time_masks=0)


def say(words: list[str], rng: np.random.Generator) -> np.ndarray:
    """Each word two tones of 0.1 s and a pause, in a little noise."""
    t = np.arange(SAMPLE_RATE // 10) / SAMPLE_RATE
    parts = [np.zeros(1600)]
    for word in words:
        parts += [0.3 * np.sin(2 * np.pi * tone * t) for tone in TONES[word]]
        parts.append(np.zeros(int(rng.integers(1600, 4000))))
    audio = np.concatenate(parts)
    return audio + 0.003 * rng.standard_normal(len(audio))


@pytest.fixture(scope="module")
def task(tmp_path_factory) -> SpeechTask:
    folder, rng, lines = tmp_path_factory.mktemp("tones"), np.random.default_rng(0), []
    for i in range(12):
        words = [list(TONES)[j] for j in rng.integers(2, size=1 + i % 4)]
        soundfile.write(folder / f"{i:02d}.wav", say(words, rng), SAMPLE_RATE)
        lines.append(f"{i:02d}.wav\t{' '.join(words)}\n")
    (folder / "table.tsv").write_text("".join(lines))
    cuts = corpus_from_folder(folder, folder / "table.tsv")
    corpus = Corpus({"train": cuts, "dev": cuts, "test": cuts.subset(first=5)}, Tokens.build("words", TONES))
    config = TransducerConfig(encoder=ENCODER, joiner=24, embedding=8, blank_bias=2.0)
    batching = Batching(seconds=20, warm_updates=0, workers=0, augmentation=TAIL_ONLY)
    return SpeechTask(corpus, config, batching, seed=0)


@pytest.fixture(scope="module")
def trained(task):
    """Largest and smallest net trained in turns; with the losses on the way."""
    torch.manual_seed(0)
    model = task.build()
    space, optimizer = SearchSpace.of(model), ScaledAdam(model.parameters(), clipping_scale=2.0)
    (batch,), losses = evaluation_batches(task.corpus.cuts["train"], task.corpus.tokens), []
    for update in range(200):
        optimizer.param_groups[0]["lr"] = 0.05 / (1 + update / 50)
        activate(model, space.largest() if update % 2 else space.smallest())
        optimizer.zero_grad()
        loss = task.loss(model, batch).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return model.eval(), losses


def test_training_overfits_a_handful_of_utterances(task, trained):
    model, losses = trained
    assert sum(losses[-10:]) < 0.1 * sum(losses[:10])
    for arch in (SearchSpace.of(model).smallest(), SearchSpace.of(model).largest()):
        activate(model, arch)
        assert task.evaluate(model, "dev") == {"wer": 0.0}
    torch.manual_seed(0)
    assert task.evaluate(task.build().eval(), "dev")["wer"] > 50


def test_build_takes_the_statistics_of_the_training_set(task, trained):
    model = task.build()
    batches = list(evaluation_batches(task.corpus.cuts["train"], task.corpus.tokens))
    frames = torch.cat([x[: n - 50] for b in batches for x, n in zip(b.features, b.feature_lengths, strict=True)])
    assert torch.allclose(model.encoder.feature_mean, frames.mean(0), atol=0.3)
    assert torch.allclose(model.encoder.feature_scale, 1 / frames.std(0), rtol=0.3)
    assert model.encoder.feature_mean.std() > 0.1


def test_the_loss_is_that_of_transducer_and_ctc_per_symbol(task, trained):
    model, _ = trained
    activate(model, SearchSpace.of(model).largest())
    batch = next(task.train_batches(3))
    output = task.loss(model, batch)
    encoded, lengths = model.encoder(batch.features), subsampled(batch.feature_lengths)
    tokens, labels = batch.tokens, batch.token_lengths
    transducer = rnnt_loss(model.lattice(encoded, tokens), tokens, lengths, labels).sum()
    ctc = torch.stack([
        torch.nn.functional.ctc_loss(
            model.ctc(x[:t]).log_softmax(-1)[:, None], y[:u][None], (int(t),), (int(u),), reduction="sum"
        )
        for x, t, y, u in zip(encoded, lengths, tokens, labels, strict=True)
    ]).sum()  # fmt: skip
    assert output.loss.item() == pytest.approx(((transducer + 0.5 * ctc) / labels.sum()).item(), rel=1e-4)
    # What is distilled: three classes a cell, weighted by how many paths pass, every path through every frame.
    assert output.logits.shape == (*encoded.shape[:2], tokens.shape[1] + 1, 3)
    assert output.weight.shape == output.logits.shape[:3]
    assert not output.weight.requires_grad
    assert torch.allclose((output.weight * labels.sum()).sum((1, 2)), (lengths + labels).float(), rtol=1e-4)
    whole = model.lattice(encoded, tokens).softmax(-1)
    assert torch.allclose(output.logits[..., 1].exp(), whole[..., 0], atol=1e-5)
    # Its gradient reaches the encoder, as distillation needs.
    output.logits[..., 1].sum().backward()
    assert model.encoder.front_in.weight.grad.abs().sum() > 0
    model.zero_grad()


def test_many_logits_are_not_kept_and_nothing_else_changes(task, trained, monkeypatch):
    model, _ = trained
    activate(model, SearchSpace.of(model).largest())
    batch = next(task.train_batches(3))
    results = []
    for few in (10**9, 0):
        monkeypatch.setattr("todm.speech.task.FEW_LOGITS", few)
        output = task.loss(model, batch)
        output.loss.backward()
        results.append((output.loss.detach(), output.weight, model.encoder.front_in.weight.grad.clone()))
        model.zero_grad()
    for kept, not_kept in zip(*results, strict=True):
        assert torch.allclose(kept, not_kept, rtol=1e-4, atol=1e-6)


def test_padding_does_not_count(task, trained):
    model, _ = trained
    (batch,) = evaluation_batches(task.corpus.cuts["train"], task.corpus.tokens)
    lengths = batch.feature_lengths // 4 * 4  # of the frames of a last, incomplete output some would be padding
    batch = replace(batch, feature_lengths=lengths)
    before = task.loss(model, batch)
    features = torch.nn.functional.pad(batch.features, (0, 0, 0, 9))
    for row, length in enumerate(lengths):
        features[row, length:] = 3.0
    tokens = torch.nn.functional.pad(batch.tokens, (0, 2), value=1)
    after = task.loss(model, replace(batch, features=features, tokens=tokens))
    assert after.loss.item() == pytest.approx(before.loss.item(), rel=1e-4)
    assert after.weight[:, before.weight.shape[1] :].abs().max() == 0
    assert after.weight[:, :, before.weight.shape[2] :].abs().max() == 0


def test_the_program_has_what_sherpa_onnx_reads(task, trained):
    """Keys as in sherpa-onnx's online-lstm-transducer-model.cc; h and c have shape (layers, 1, size)."""
    model, _ = trained
    space = SearchSpace.of(model)
    for arch in (space.smallest(), space.largest()):
        program = task.program(extract(model, arch))
        meta, (encode, predict, join) = program.metadata, program.methods
        assert meta["model_type"] == "lstm"
        assert int(meta["T"]) == int(meta["decode_chunk_len"]) == encode.inputs["x"].shape[1] == 32
        assert encode.dynamic == {"x": {0: "N"}, "state0": {1: "N"}, "state1": {1: "N"}}
        layers = int(meta["num_encoder_layers"])
        assert encode.inputs["state0"].shape == (layers, 1, int(meta["d_model"]))
        assert encode.inputs["state1"].shape == (layers, 1, int(meta["rnn_hidden_size"]))
        assert int(meta["d_model"]) == arch["depth"] * 4 * 4 * 2 * 4
        assert int(meta["vocab_size"]) == join.module.out.out_features == 4
        assert int(meta["context_size"]) == predict.inputs["y"].shape[1] == 2
        assert int(meta["joiner_dim"]) == join.inputs["encoder_out"].shape[1] == 24
        assert all(type(value) is str for value in meta.values())
        assert (encode.file, predict.file, join.file) == ("encoder", "decoder", "joiner")
        assert (
            program.assets["tokens.txt"]
            == b"<blk> 0\n"
            + "".join(f"{symbol} {i}\n" for i, symbol in enumerate(task.corpus.tokens.symbols) if i).encode()
        )
        assert (program.seconds, program.variant) == (0.32, "streaming")


def test_the_program_s_methods_keep_their_signature(task, trained):
    model, _ = trained
    program = task.program(extract(model, SearchSpace.of(model).largest()))
    methods = eager(program)
    assert list(methods) == ["encode_chunk", "predict", "join"]
    assert program.state_shapes() == [tuple(program.methods[0].inputs[s].shape) for s in ("state0", "state1")]
    for method in program.methods:
        assert not any(module.training for module in method.module.modules())
        arrays = [value.numpy() for value in method.inputs.values()]
        outputs = methods[method.name](*arrays)
        assert len(outputs) == len(method.outputs)
        assert all(output.dtype == np.float32 for output in outputs)
        named = dict(zip(method.outputs, outputs, strict=True))
        for output, state in method.states.items():  # a state can be fed back
            assert named[output].shape == method.inputs[state].shape
        # Two streams at once, along the axis that is called N.
        axes = {name: axis for name, dynamic in method.dynamic.items() for axis in dynamic}
        assert set(axes) == set(method.inputs)
        doubled = methods[method.name](*(np.repeat(a, 2, axes[n]) for n, a in zip(method.inputs, arrays, strict=True)))
        for name, one, two in zip(method.outputs, outputs, doubled, strict=True):
            axis = 1 if name in method.states else 0
            assert np.allclose(two, np.repeat(one, 2, axis), atol=1e-6)
    assert program.methods[0].quantize
    assert program.methods[2].calls == 8


def test_the_stream_says_what_the_whole_utterance_says(task, trained):
    model, _ = trained
    space, rng = SearchSpace.of(model), random.Random(0)
    for arch in (space.smallest(), space.largest(), space.sample(rng)):
        program = streaming_program(extract(model, arch), task.corpus.tokens)
        score = task.score(program, eager(program), "test")
        assert score.metrics == {"wer": 0.0}
        assert score.outputs == [text for _, text in task.corpus.utterances("test")]


def test_sherpa_onnx_says_so_too(task, trained, tmp_path):
    sherpa_onnx = pytest.importorskip("sherpa_onnx", reason="the runtime is not installed")
    model, _ = trained
    program = task.program(extract(model, SearchSpace.of(model).smallest()))
    files = {path.stem: str(path) for path in Onnx().export(program, tmp_path, "float")}
    folder = atomic_write(tmp_path / "tokens.txt", program.assets["tokens.txt"])
    recogniser = sherpa_onnx.OnlineRecognizer.from_transducer(
        tokens=str(folder), encoder=files["encoder"], decoder=files["decoder"], joiner=files["joiner"],
        model_type="lstm", provider="cpu",
    )  # fmt: skip
    for samples, text in task.corpus.utterances("test"):
        stream = recogniser.create_stream()
        stream.accept_waveform(SAMPLE_RATE, np.concatenate([samples, TAIL]))
        stream.input_finished()
        while recogniser.is_ready(stream):
            recogniser.decode_stream(stream)
        assert recogniser.get_result(stream).split() == text.split()
