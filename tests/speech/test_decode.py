from itertools import product

import numpy as np
import pytest
import torch

from todm.errors import TodmError
from todm.speech.decode import BeamSearch, GreedySearch, StreamRecogniser, WholeRecogniser, greedy
from todm.speech.features import fbank
from todm.speech.tokens import Tokens

TOKENS = Tokens("words", ("<blk>", "▁", "one", "two", "three"))
SIZE = len(TOKENS)


class TableModel:
    """A joiner that adds a table of the context to the encoder's vector, both being logits."""

    def __init__(self, seed: int, vocabulary: int, scale: float = 1.0):
        rng = np.random.default_rng(seed)
        self.vocabulary = vocabulary
        self.table = rng.normal(0, scale, (vocabulary + 1, vocabulary + 1, vocabulary)).astype(np.float32)
        self.contexts: list[tuple[int, ...]] = []
        self.methods = {"predict": self.predict, "join": lambda e, d: (e + d,)}

    def predict(self, y: np.ndarray) -> tuple[np.ndarray]:
        assert y.shape == (1, 2)
        assert y.dtype == np.int64
        self.contexts.append(tuple(y[0].tolist()))
        return (self.table[y[:, 0], y[:, 1]],)

    def torch_predict(self, y: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(self.table)[y[:, 0], y[:, 1]]


def run(search, encoded: np.ndarray):
    for frame in encoded:
        search.advance(frame[None])
    return search.symbols


def most_probable(model: TableModel, encoded: np.ndarray) -> tuple[int, ...]:
    """By adding up every alignment of every sequence."""
    totals: dict[tuple[int, ...], float] = {}
    for path in product(range(model.vocabulary), repeat=len(encoded)):
        context, score, symbols = (-1, 0), 0.0, ()
        for frame, symbol in zip(encoded, path, strict=True):
            logits = (frame + model.table[context]).astype(np.float64)
            score += logits[symbol] - np.logaddexp.reduce(logits)
            if symbol:
                symbols, context = (*symbols, symbol), (context[1], symbol)
        totals[symbols] = np.logaddexp(totals.get(symbols, -np.inf), score)
    return max(totals, key=totals.__getitem__)


def test_a_wide_beam_finds_the_most_probable_sequence_and_greedy_does_not():
    greedy_errors = 0
    for seed in range(12):
        model = TableModel(seed, vocabulary=3)
        encoded = np.random.default_rng(100 + seed).normal(size=(5, 3)).astype(np.float32)
        best = most_probable(model, encoded)
        assert run(BeamSearch(model.methods, width=1000), encoded) == best
        greedy_errors += run(GreedySearch(model.methods), encoded) != best
    assert greedy_errors > 0


@pytest.mark.parametrize("seed", range(3))
def test_all_greedy_searches_agree(seed):
    model = TableModel(seed, vocabulary=6, scale=2.0)
    lengths = [17, 1, 30, 24]
    encoded = np.random.default_rng(seed).normal(0, 2, (4, 30, 6)).astype(np.float32)
    encoded[:, :, 0] += 2
    batched = greedy(torch.from_numpy(encoded), torch.tensor(lengths), model.torch_predict, torch.add)
    for row, length, symbols in zip(encoded, lengths, batched, strict=True):
        assert run(GreedySearch(model.methods), row[:length]) == tuple(symbols)
        assert run(BeamSearch(model.methods, width=1), row[:length]) == tuple(symbols)
    assert max(map(len, batched)) > 3
    assert not any(0 in symbols for symbols in batched)


def test_the_predictor_is_asked_once_at_the_start_and_after_every_symbol():
    model = TableModel(0, vocabulary=4, scale=0.0)
    encoded = 9 * np.eye(4, dtype=np.float32)[[0, 2, 0, 0, 3, 3, 0]]
    assert run(GreedySearch(model.methods), encoded) == (2, 3, 3)
    assert model.contexts == [(-1, 0), (0, 2), (2, 3), (3, 3)]


class Scripted:
    """An encoder whose states count the chunks: says "one two two" in its second and third chunk."""

    def __init__(self):
        self.heard: list[np.ndarray] = []
        self.said = {9: 2, 10: 1, 14: 3, 16: 1, 17: 3, 23: 1}
        self.table = TableModel(0, SIZE, scale=0.0)
        self.methods = {**self.table.methods, "encode_chunk": self.encode}

    def encode(self, x, state0, state1):
        assert x.shape == (1, 32, 80)
        assert x.dtype == state0.dtype == state1.dtype == np.float32
        assert state0.shape == (1, 1, 3)
        assert state1.shape == (1, 1, 2)
        assert np.all(state1 == 2 * state0[0, 0, 0])
        self.heard.append(x[0].copy())
        encoded = np.zeros((1, 8, SIZE), np.float32)
        for t in range(8):
            encoded[0, t, self.said.get(round(8 * state0[0, 0, 0]) + t, 0)] = 5
        return encoded, state0 + 1, state1 + 2


def recogniser(script: Scripted, beam: int = 1) -> StreamRecogniser:
    return StreamRecogniser(script.methods, TOKENS, [(1, 1, 3), (1, 1, 2)], beam=beam)


SAMPLES = np.random.default_rng(0).normal(0, 0.1, 15_000).astype(np.float32)


@pytest.mark.parametrize("beam", [1, 3])
@pytest.mark.parametrize("piece", [1_000, 5_120, 15_000])
def test_a_stream_gives_the_same_words_for_pieces_of_any_length(piece, beam):
    script = Scripted()
    stream = recogniser(script, beam)
    for start in range(0, len(SAMPLES), piece):
        stream.accept(SAMPLES[start : start + piece])
    assert stream.text == "one two"
    assert stream.finish() == "one two two"
    # Chunks of the features of the signal and half a second of silence; more silence completes the last one.
    frames = fbank(np.concatenate([SAMPLES, np.zeros(8_000, np.float32)])).numpy()
    heard = np.concatenate(script.heard)
    assert len(frames) < len(heard) == -(-len(frames) // 32) * 32
    assert np.array_equal(heard[: len(frames)], frames)
    assert np.all(heard[len(frames) :] == heard[-1, 0])
    assert heard[-1, 0] == frames[-1, 0]


def test_utterances_do_not_see_each_other():
    script = Scripted()
    stream = recogniser(script)
    assert stream.transcribe(SAMPLES) == "one two two"
    assert stream.transcribe(SAMPLES) == "one two two"
    assert stream.transcribe(SAMPLES[:100]) == "one two"  # two chunks, and only what is said in those


@pytest.mark.parametrize(
    ("samples", "rate", "says"),
    [
        (SAMPLES, 8_000, "samples come at 8000 a second, models hear 16000"),
        (SAMPLES[:0], 16_000, "there are no samples to recognise"),
        (np.append(SAMPLES, np.float32("nan")), 16_000, "NaN or infinite"),
        (np.append(SAMPLES, np.float32("inf")), 16_000, "NaN or infinite"),
        (np.stack([SAMPLES, SAMPLES]), 16_000, r"not \(2, 15000\); mix it down"),
    ],
)
def test_what_is_no_sound_is_refused_in_one_line(samples, rate, says):
    script = Scripted()
    for hearing in (recogniser(script), WholeRecogniser(script.methods, TOKENS)):
        with pytest.raises(TodmError, match=says) as caught:
            hearing.transcribe(samples, rate)
        assert "\n" not in str(caught.value)
    assert script.heard == []


def test_a_stream_goes_on_after_a_piece_that_is_no_sound():
    stream = recogniser(Scripted())
    stream.accept(SAMPLES[:7_000])
    with pytest.raises(TodmError, match="NaN"):
        stream.accept(np.full(100, np.nan, np.float32))
    stream.accept(SAMPLES[7_000:])
    assert stream.finish() == "one two two"
