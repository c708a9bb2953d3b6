"""The program of a recogniser: its signature, its two ways of use, and that sherpa-onnx runs its files unchanged."""

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import sherpa_onnx
import torch

from todm import SearchSpace, activate, extract
from todm.errors import TodmError
from todm.export import compare, record
from todm.export.backend import Precision
from todm.export.delegation import summarise
from todm.export.executorch import ExecuTorch
from todm.export.onnx import Onnx
from todm.files import atomic_write
from todm.program import Program, eager
from todm.speech.encoder import SUBSAMPLING, Encoder, EncoderConfig
from todm.speech.features import SAMPLE_RATE, TAIL
from todm.speech.program import transducer_program
from todm.speech.task import SpeechTask
from todm.speech.tokens import Tokens
from todm.speech.transducer import Transducer
from todm.speech.whole import LONGEST, SILENCE, WholeEncoder


@pytest.fixture(scope="session")
def subnet(trained):
    model, _ = trained
    return extract(model, SearchSpace.of(model).largest())


@pytest.fixture(scope="session")
def program(subnet, task) -> Program:
    return task.program(subnet)


@pytest.fixture(scope="session")
def files(program: Program, tmp_path_factory) -> dict[str, dict[str, str]]:
    """Variant -> name of an argument of sherpa-onnx -> file."""
    folder = tmp_path_factory.mktemp("sherpa")
    found = {}
    for variant, paths in Onnx().export(program, folder, "float").items():
        tokens = atomic_write(paths[0].with_name("tokens.txt"), program.assets["tokens.txt"])
        found[variant] = {path.stem: str(path) for path in (*paths, tokens)}
    return found


def test_the_program_has_what_sherpa_onnx_reads(task: SpeechTask, trained) -> None:
    """Keys as in sherpa-onnx's online-lstm-transducer-model.cc; h and c have shape (layers, 1, size)."""
    model, _ = trained
    space = SearchSpace.of(model)
    for arch in (space.smallest(), space.largest()):
        program = task.program(extract(model, arch))
        chunk, predict, join, whole = program.methods
        meta = chunk.metadata
        assert meta["model_type"] == "lstm"
        assert int(meta["T"]) == int(meta["decode_chunk_len"]) == chunk.inputs["x"].shape[1] == 32
        layers = int(meta["num_encoder_layers"])
        assert chunk.inputs["state0"].shape == (layers, 1, int(meta["d_model"]))
        assert chunk.inputs["state1"].shape == (layers, 1, int(meta["rnn_hidden_size"]))
        cache = 20 * (2 * arch["attention_heads"] * 8 + 1)
        assert int(meta["d_model"]) == 4 * 4 * 2 * 4 + (cache if arch["depth"] == 2 else 0)
        assert int(predict.metadata["vocab_size"]) == join.module.out.out_features == 4
        assert int(predict.metadata["context_size"]) == predict.inputs["y"].shape[1] == 2
        assert int(join.metadata["joiner_dim"]) == join.inputs["encoder_out"].shape[1] == 24
        assert all(type(value) is str for method in program.methods for value in method.metadata.values())
        assert [method.file for method in program.methods] == ["encoder", "decoder", "joiner", "encoder"]
        table = "".join(f"{symbol} {i}\n" for i, symbol in enumerate(task.corpus.tokens.symbols))
        assert program.assets["tokens.txt"] == table.encode()
        assert table.startswith("<blk> 0\n")
        assert program.seconds == 0.32
        assert list(program.variants) == ["streaming", "offline"]
        alone = program.only("offline")
        assert [method.name for method in alone.methods] == ["encode", "predict", "join"]
        assert list(alone.ways()) == ["offline"]
        assert whole.calls == 0


@pytest.mark.parametrize(
    ("method", "key"), [("encode_chunk", "T"), ("predict", "context_size"), ("join", "joiner_dim"), ("encode", "model_type")]
)  # fmt: skip
def test_missing_metadata_is_found_before_anything_is_written(program, tmp_path: Path, method: str, key: str) -> None:
    bare = tuple(
        replace(each, metadata={k: v for k, v in each.metadata.items() if (each.name, k) != (method, key)})
        for each in program.methods
    )
    with pytest.raises(TodmError, match=rf"lacks metadata {key}, without which sherpa-onnx ends .* method '{method}'"):
        Onnx().export(replace(program, methods=bare), tmp_path, "float")
    assert not list(tmp_path.rglob("*.onnx"))


def test_the_methods_keep_their_signature(program: Program) -> None:
    methods = eager(program)
    assert list(methods) == ["encode_chunk", "predict", "join", "encode"]
    assert program.state_shapes() == [tuple(program.methods[0].inputs[s].shape) for s in ("state0", "state1")]
    for method in program.methods:
        assert not any(module.training for module in method.module.modules())
        arrays = [value.numpy() for value in method.inputs.values()]
        outputs = methods[method.name](*arrays)
        assert len(outputs) == len(method.outputs)
        named = dict(zip(method.outputs, outputs, strict=True))
        for output, state in method.states.items():  # a state can be fed back
            assert named[output].shape == method.inputs[state].shape
        # Two streams at once, along the axis that is called N.
        axes = {name: next(a for a, s in dynamic.items() if s == "N") for name, dynamic in method.dynamic.items()}
        assert set(axes) == set(method.inputs)
        doubled = methods[method.name](*(np.repeat(a, 2, axes[n]) for n, a in zip(method.inputs, arrays, strict=True)))
        for name, one, two in zip(method.outputs, outputs, doubled, strict=True):
            axis = 1 if name in method.states else 0
            assert np.allclose(two, np.repeat(one, 2, axis), atol=1e-6)
    assert program.methods[0].quantize
    assert program.methods[2].calls == 8


@pytest.mark.parametrize("chunk_ms", [160, 320, 640])
def test_chunk_by_chunk_is_the_whole_utterance(subnet, task: SpeechTask, chunk_ms: int) -> None:
    """The same encoder vectors and words, whatever the chunk: only how often a device computes differs."""
    program = transducer_program(subnet, task.corpus.tokens, chunk_ms)
    methods, frames = eager(program), chunk_ms // 10
    x = 5 * np.random.default_rng(0).standard_normal((1, 5 * frames, 80)).astype(np.float32)
    states = [np.zeros(shape, np.float32) for shape in program.state_shapes()]
    parts = []
    for start in range(0, 5 * frames, frames):
        part, *states = methods["encode_chunk"](x[:, start : start + frames], *states)
        parts.append(part)
    whole, lengths = methods["encode"](x, np.array([5 * frames]))
    assert lengths == [(5 * frames + 52) // 4]
    assert np.abs(whole[:, : 5 * frames // 4] - np.concatenate(parts, 1)).max() < 1e-4
    ways = [{method.name: methods[method.name] for method in way} for way in program.ways().values()]
    for way in ways:
        score = task.score(program, way, "test")
        assert score.metrics == {"wer": 0.0}
        assert score.outputs == [text for _, text in task.corpus.utterances("test")]


@pytest.mark.parametrize("every", [0, 1, 2])
def test_whole_utterances_are_heard_as_in_training(every: int) -> None:
    """With the impulse responses in closed form, for supernets and subnets of either family of blocks, and of both."""
    torch.manual_seed(every)
    config = EncoderConfig(width=[16], depth=[1, 2, 3], hidden=[16, 32], heads=[4, 8], states=[4, 8],
                           attention_every=every, attention_heads=[1, 2], front=16)  # fmt: skip
    encoder = Encoder(config, 24).eval()
    space, rng = SearchSpace.of(encoder), random.Random(0)
    for arch in (space.smallest(), space.largest(), space.sample(rng), space.sample(rng)):
        activate(encoder, arch)
        for form in (encoder, extract(encoder, arch).eval()):
            whole = WholeEncoder(form).eval()
            for frames in (4, 43, 600):
                x = 3 * torch.randn(2, frames, 80)
                with torch.no_grad():
                    ours, lengths = whole(x, torch.tensor([frames, frames]))
                    theirs = form(torch.cat([x, whole.silence.expand(2, -1, -1)], 1))
                assert lengths.tolist() == [theirs.shape[1]] * 2
                assert torch.allclose(ours, theirs, atol=1e-5)


def test_what_lies_beyond_an_utterance_is_silence(program: Program) -> None:
    encode, x = eager(program)["encode"], np.random.default_rng(1).standard_normal((2, 40, 80)).astype(np.float32)
    both, lengths = encode(x, np.array([40, 23]))
    alone, _ = encode(x[1:, :24], np.array([23]))
    assert lengths.tolist() == [23, 19]
    assert np.allclose(both[1, :19], alone[0, :19], atol=1e-5)


@pytest.mark.parametrize("method", ["greedy_search", "modified_beam_search"])
def test_sherpa_onnx_hears_the_same_in_several_streams_at_once(task: SpeechTask, files, method: str) -> None:
    recogniser = sherpa_onnx.OnlineRecognizer.from_transducer(
        **files["streaming"], model_type="", provider="cpu", decoding_method=method
    )
    said = list(task.corpus.utterances("test"))
    streams = [recogniser.create_stream() for _ in said]
    for stream, (samples, _) in zip(streams, said, strict=True):
        stream.accept_waveform(SAMPLE_RATE, np.concatenate([samples, TAIL]))
        stream.input_finished()
    while ready := [stream for stream in streams if recogniser.is_ready(stream)]:
        recogniser.decode_streams(ready)
    assert [recogniser.get_result(stream).split() for stream in streams] == [text.split() for _, text in said]


@pytest.mark.parametrize("method", ["greedy_search", "modified_beam_search"])
def test_sherpa_onnx_hears_the_same_in_whole_utterances(task: SpeechTask, files, method: str) -> None:
    recogniser = sherpa_onnx.OfflineRecognizer.from_transducer(
        **files["offline"], model_type="", provider="cpu", decoding_method=method
    )
    said = list(task.corpus.utterances("test"))
    streams = [recogniser.create_stream() for _ in said]
    for stream, (samples, _) in zip(streams, said, strict=True):
        stream.accept_waveform(SAMPLE_RATE, samples)
    recogniser.decode_streams(streams)
    assert [stream.result.text.split() for stream in streams] == [text.split() for _, text in said]


@pytest.mark.parametrize("precision", ["float", "int8"])
def test_executorch_runs_both_families_of_blocks(program, task, tmp_path: Path, precision: Precision) -> None:
    """A state-space and an attention block, by chunks and of whole utterances of other lengths than the example's."""
    reference, calls = eager(program), []
    for way in program.ways().values():
        methods = {method.name: reference[method.name] for method in way}
        calls += record(methods, lambda spied: task.score(program, spied, "test"), 20)
    assert {inputs[0].shape[1] for name, inputs in calls if name == "encode"} - {200} != set()
    (path,) = ExecuTorch().export(program, tmp_path, precision, calls)["offline"]
    rows = compare(program, reference, ExecuTorch().load(path.parent, precision), calls)
    assert [row["method"] for row in rows] == ["encode_chunk", "predict", "join", "encode"]
    assert max(row["max_rel"] for row in rows) < (1e-5 if precision == "float" else 0.2)
    (traced,) = summarise(ExecuTorch().trace(path.parent, precision, 1, program.signature()))
    assert traced["matrix_accelerated"] == 1


def test_memory_planned_ahead_does_not_grow_with_depth(tmp_path: Path) -> None:
    """The matrices of one layer at a time: those of thirty seconds are far larger than all else."""
    from executorch.exir._serialize._program import deserialize_pte_binary

    planned = []
    for depth in (1, 4):
        config = EncoderConfig(width=[16], depth=[depth], hidden=[16], heads=[4], head_size=4, states=[4], front=16)
        model = Transducer(config, 5, joiner_size=16, embedding_size=8)
        subnet = extract(model, SearchSpace.of(model).largest()).eval()
        whole = transducer_program(subnet, Tokens("words", ("<blk>", "▁", "a", "b", "c"))).only("offline")
        (path,) = ExecuTorch().export(whole, tmp_path / str(depth), "float")["offline"]
        plans = deserialize_pte_binary(path.read_bytes()).program.execution_plan
        planned.append(next(sum(plan.non_const_buffer_sizes) for plan in plans if plan.name == "encode"))
    frames = (LONGEST + SILENCE) // SUBSAMPLING
    assert planned[0] > 4 * 4 * frames**2
    assert planned[1] < 1.2 * planned[0]
