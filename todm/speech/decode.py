"""From encoder vectors to symbols, at most one a frame: batches in PyTorch, streams on exported programs."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from todm.errors import TodmError
from todm.program import Methods
from todm.speech.encoder import SUBSAMPLING
from todm.speech.features import BINS, LOG_EPSILON, SAMPLE_RATE, TAIL, Samples, StreamingFbank, checked, fbank
from todm.speech.tokens import Tokens
from todm.speech.transducer import BLANK, CONTEXT, START


@torch.inference_mode()
def greedy(
    encoded: Tensor,
    lengths: Tensor,
    predict: Callable[[Tensor], Tensor],
    join: Callable[[Tensor, Tensor], Tensor],
) -> list[list[int]]:
    """The most probable symbol of every frame, for a batch of whole utterances.

    Args:
        encoded: (batch, time, size) vectors of the encoder.
        lengths: (batch,) frames of each utterance.
        predict: (batch, 2) int64 symbols, -1 for none -> (batch, size).
        join: (batch, size) twice -> (batch, vocabulary) logits.

    Returns:
        The symbols of each utterance, blanks left out.
    """
    batch, frames, _ = encoded.shape
    lengths = lengths.to(encoded.device)
    context = torch.tensor(START, device=encoded.device).repeat(batch, 1)
    predicted, path = predict(context), []
    for t in range(frames):
        symbol = torch.where(t < lengths, join(encoded[:, t], predicted).argmax(-1), BLANK)
        path.append(symbol)
        emits = symbol != BLANK
        if emits.any():
            context = torch.where(emits[:, None], torch.stack([context[:, 1], symbol], dim=1), context)
            predicted = predict(context)
    return [[s for s in symbols if s != BLANK] for symbols in torch.stack(path, dim=1).tolist()]


def _predict(methods: Methods, symbols: tuple[int, ...]) -> np.ndarray:
    """The predictor's vector after `symbols`: (1, size)."""
    return methods["predict"](np.array([(*START, *symbols)[-CONTEXT:]], np.int64))[0]


class GreedySearch:
    """The most probable symbol of every frame of one stream."""

    def __init__(self, methods: Methods) -> None:
        self._methods = methods
        self.symbols: tuple[int, ...] = ()
        self._predicted = _predict(methods, ())

    def advance(self, frame: np.ndarray) -> None:
        """Take the next encoder vector, (1, size)."""
        symbol = int(self._methods["join"](frame, self._predicted)[0].argmax())
        if symbol != BLANK:
            self.symbols += (symbol,)
            self._predicted = _predict(self._methods, self.symbols)


class BeamSearch:
    """The most probable sequence of one stream, over all its alignments that stay among `width` hypotheses.

    Alignments of the same symbols are merged, their probabilities added (the modified beam search of Kang et
    al. 2022, "Fast and parallel decoding for transducer").
    """

    def __init__(self, methods: Methods, width: int) -> None:
        self._methods, self._width = methods, width
        self._hypotheses: dict[tuple[int, ...], tuple[float, np.ndarray]] = {(): (0.0, _predict(methods, ()))}

    def advance(self, frame: np.ndarray) -> None:
        """Take the next encoder vector, (1, size)."""
        scores: dict[tuple[int, ...], float] = {}
        for symbols, (score, predicted) in self._hypotheses.items():
            logits = self._methods["join"](frame, predicted)[0][0]
            scored = logits - np.logaddexp.reduce(logits) + score
            for symbol in np.argsort(-scored)[: self._width].tolist():
                extended = symbols if symbol == BLANK else (*symbols, symbol)
                scores[extended] = float(np.logaddexp(scores.get(extended, -np.inf), scored[symbol]))
        known, self._hypotheses = self._hypotheses, {}
        for symbols in sorted(scores, key=scores.__getitem__, reverse=True)[: self._width]:
            predicted = known[symbols][1] if symbols in known else _predict(self._methods, symbols)
            self._hypotheses[symbols] = scores[symbols], predicted

    @property
    def symbols(self) -> tuple[int, ...]:
        """The best sequence so far."""
        return next(iter(self._hypotheses))


def search(methods: Methods, beam: int) -> GreedySearch | BeamSearch:
    """The search that keeps `beam` hypotheses; 1 is greedy."""
    return BeamSearch(methods, beam) if beam > 1 else GreedySearch(methods)


class Recogniser(ABC):
    """A program at work on whole recordings."""

    tail: Samples = TAIL
    """Silence that follows an utterance."""

    @abstractmethod
    def recognise(self, features: np.ndarray) -> str:
        """The words of the `features` of an utterance."""

    @classmethod
    def features(cls, samples: Samples, rate: int = SAMPLE_RATE) -> np.ndarray:
        """What is heard of an utterance, samples (n,), 16 kHz in [-1, 1]: (frames, 80).

        Raises:
            TodmError: there are none, or they are not such samples.
        """
        if not len(samples):
            raise TodmError("there are no samples to recognise; record again")
        return fbank(np.append(checked(samples, rate), cls.tail)).numpy()

    def transcribe(self, samples: Samples, rate: int = SAMPLE_RATE) -> str:
        """The words of an utterance, see `features`."""
        return self.recognise(self.features(samples, rate))


class WholeRecogniser(Recogniser):
    """A program that hears an utterance at once; its encoder adds the silence at the end itself.

    Args:
        methods: `encode`, `predict` and `join`, eager or loaded from a bundle.
        tokens: The symbols of the program.
        beam: Hypotheses kept; 1 is greedy search.
    """

    tail = TAIL[:0]

    def __init__(self, methods: Methods, tokens: Tokens, beam: int = 1) -> None:
        self._methods, self._tokens, self._beam = methods, tokens, beam

    def recognise(self, features: np.ndarray) -> str:
        # Filled up to whole outputs, and to one at least; what lies beyond the length counts as silence.
        filled = np.zeros((1, max(SUBSAMPLING, -(-len(features) // SUBSAMPLING) * SUBSAMPLING), BINS), np.float32)
        filled[0, : len(features)] = features
        encoded, lengths = self._methods["encode"](filled, np.array([len(features)], np.int64))
        path = search(self._methods, self._beam)
        for t in range(int(lengths[0])):
            path.advance(encoded[:, t])
        return self._tokens.decode(path.symbols)


class StreamRecogniser(Recogniser):
    """A streaming program at work: audio in, in pieces of any length, words out, one utterance after another.

    Args:
        methods: `encode_chunk`, `predict` and `join`, eager or loaded from a bundle.
        tokens: The symbols of the program.
        states: Shapes of the states that `encode_chunk` takes after the frames and returns after the vectors.
        frames: Feature frames per chunk.
        beam: Hypotheses kept; 1 is greedy search.
    """

    def __init__(
        self,
        methods: Methods,
        tokens: Tokens,
        states: Sequence[tuple[int, ...]],
        frames: int = 32,
        beam: int = 1,
    ) -> None:
        self._methods, self._tokens, self._shapes = methods, tokens, states
        self._frames, self._beam = frames, beam
        self.reset()

    def reset(self) -> None:
        """Forget everything heard: the next samples begin an utterance."""
        self._bank = StreamingFbank()
        self._states = [np.zeros(shape, np.float32) for shape in self._shapes]
        self._search = search(self._methods, self._beam)

    def accept(self, samples: Samples, rate: int = SAMPLE_RATE) -> None:
        """Hear samples (n,), 16 kHz in [-1, 1], and decode every chunk that they complete.

        Raises:
            TodmError: they are not such samples; the utterance may go on with others.
        """
        self._bank.accept(samples, rate)
        self._decode()

    def finish(self) -> str:
        """End the utterance with half a second of silence and return its words; `reset` begins another."""
        self._bank.accept(TAIL)
        self._bank.finish()
        self._decode()
        if left := self._bank.ready:
            self._hear(self._bank.pop(left))
        return self.text

    @property
    def text(self) -> str:
        """The words recognised so far."""
        return self._tokens.decode(self._search.symbols)

    def recognise(self, features: np.ndarray) -> str:
        self.reset()
        for start in range(0, len(features), self._frames):
            self._hear(features[start : start + self._frames])
        return self.text

    def _decode(self) -> None:
        while self._bank.ready >= self._frames:
            self._hear(self._bank.pop(self._frames))

    def _hear(self, chunk: np.ndarray) -> None:
        """A chunk, or the last part of one, which silence completes."""
        silence = np.full((self._frames - len(chunk), BINS), LOG_EPSILON, np.float32)
        chunk = np.concatenate([chunk, silence])
        encoded, *self._states = self._methods["encode_chunk"](chunk[None], *self._states)
        for t in range(encoded.shape[1]):
            self._search.advance(encoded[:, t])
