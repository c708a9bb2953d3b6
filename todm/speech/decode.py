"""From encoder vectors to symbols, at most one a frame: batches in PyTorch, streams on exported programs."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from todm.program import Methods
from todm.speech.features import TAIL, Samples, StreamingFbank
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


class StreamRecogniser:
    """A streaming program at work: audio in, in pieces of any length, words out, one utterance after another.

    Args:
        methods: `encode_chunk`, `predict` and `join`, eager or loaded from a bundle.
        tokens: The symbols of the program.
        states: Shapes of the states that `encode_chunk` takes after the frames and returns after the vectors.
        frames: Feature frames per chunk, at most 50: the silence that ends an utterance covers that many.
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
        self._search = BeamSearch(self._methods, self._beam) if self._beam > 1 else GreedySearch(self._methods)

    def accept(self, samples: Samples) -> None:
        """Hear samples (n,), 16 kHz in [-1, 1], and decode every chunk that they complete."""
        self._bank.accept(samples)
        self._decode()

    def finish(self) -> str:
        """End the utterance with half a second of silence and return its words; `reset` begins another."""
        self._bank.accept(TAIL)
        self._bank.finish()
        self._decode()
        return self.text

    @property
    def text(self) -> str:
        """The words recognised so far."""
        return self._tokens.decode(self._search.symbols)

    def transcribe(self, samples: Samples) -> str:
        """The words of a whole utterance, samples (n,)."""
        self.reset()
        self.accept(samples)
        return self.finish()

    def _decode(self) -> None:
        # What is left of a chunk at the very end is less than the silence appended, and holds no speech.
        while self._bank.ready >= self._frames:
            chunk = self._bank.pop(self._frames)[None]
            encoded, *self._states = self._methods["encode_chunk"](chunk, *self._states)
            for t in range(encoded.shape[1]):
                self._search.advance(encoded[:, t])
