"""RNN transducer (Graves 2012) with a stateless predictor (Ghodsi et al. 2020) and an additive joiner."""

import torch
from torch import Tensor, nn

from todm.once import Once
from todm.speech.encoder import Encoder, EncoderConfig

BLANK = 0
CONTEXT = 2
START = (-1, BLANK)
"""Context before the first symbol; -1 stands for "nothing" and embeds to zero."""


class Predictor(nn.Module):
    """The last two symbols -> a vector: (batch, 2) or (batch, ..., 2) int64 -> (..., size out). -1 is "nothing"."""

    def __init__(self, vocabulary: int, size: int, size_out: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, size)
        self.project = nn.Linear(CONTEXT * size, size_out)

    def forward(self, symbols: Tensor) -> Tensor:
        present = (symbols >= 0).unsqueeze(-1)
        embedded = self.embed(symbols.clamp_min(0))
        return self.project(torch.relu((embedded * present.to(embedded.dtype)).flatten(-2)))


class Joiner(nn.Module):
    """Sum of encoder and predictor vectors -> symbol logits."""

    def __init__(self, size: int, vocabulary: int) -> None:
        super().__init__()
        self.out = nn.Linear(size, vocabulary)

    def forward(self, encoded: Tensor, predicted: Tensor) -> Tensor:
        """(..., size) and (..., size) -> (..., vocabulary)."""
        return self.out(torch.tanh(encoded + predicted))

    def of_sums(self) -> nn.Module:
        """What follows the sum, (..., size) -> (..., vocabulary), for losses that take sums themselves."""
        return nn.Sequential(nn.Tanh(), self.out)


class Transducer(nn.Module):
    """Encoder, predictor and joiner, with heads that exist in training only: CTC, and the simple joiner for pruning.

    Args:
        config: The encoder's sizes.
        vocabulary: Number of symbols, blank included.
        joiner_size: Width in which encoder and predictor meet.
        embedding_size: Width of the predictor's embedding.
        pruned: Whether there is a simple joiner, the sum of two linear maps to the vocabulary.
    """

    ctc: nn.Linear | None
    simple: nn.ModuleDict | None

    def __init__(
        self, config: EncoderConfig, vocabulary: int, joiner_size: int, embedding_size: int, pruned: bool = False
    ) -> None:
        super().__init__()
        self.encoder = Encoder(config, joiner_size)
        self.predictor = Predictor(vocabulary, embedding_size, joiner_size)
        self.joiner = Joiner(joiner_size, vocabulary)
        self.ctc = nn.Linear(joiner_size, vocabulary)
        maps = {name: nn.Linear(joiner_size, vocabulary) for name in ("encoder", "predictor")}
        self.simple = nn.ModuleDict(maps) if pruned else None
        self.predicted = Once(self.predict)

    def start_with_blanks(self, bias: float) -> None:
        """Let all outputs begin with `bias` on the blank."""
        simple = self.simple["encoder"] if self.simple is not None else None
        with torch.no_grad():
            for layer in (self.joiner.out, self.ctc, simple):
                if isinstance(layer, nn.Linear):
                    layer.bias[BLANK] = bias

    def plain(self) -> "Transducer":
        """What is deployed: without what exists in training only."""
        self.ctc = self.simple = None
        return self

    def predict(self, tokens: Tensor) -> Tensor:
        """What the predictor says before each token and after the last.

        Args:
            tokens: (batch, labels) int64

        Returns:
            (batch, labels + 1, joiner size)
        """
        start = torch.tensor(START, device=tokens.device).expand(len(tokens), CONTEXT)
        history = torch.cat([start, tokens], dim=1)
        return self.predictor(history.unfold(1, CONTEXT, 1))

    def lattice(self, encoded: Tensor, tokens: Tensor) -> Tensor:
        """Logits of every (frame, symbols so far) pair: (batch, time, labels + 1, vocabulary)."""
        return self.joiner(encoded[:, :, None], self.predicted(tokens)[:, None])
