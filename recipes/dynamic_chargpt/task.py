"""A character GPT on a small part of tiny Shakespeare, little enough of it that the net overfits."""

from collections.abc import Iterator
from pathlib import Path

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional as F

from todm.elastic import ElasticLinear
from todm.errors import TodmError
from todm.fetch import Source
from todm.plain_task import PlainTask
from todm.recipe import STRICT, Count
from todm.recipes.transformer import Transformer, TransformerConfig
from todm.task import LossOutput

SHAKESPEARE = Source(
    "tinyshakespeare",
    "https://raw.githubusercontent.com/karpathy/char-rnn/6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e/data/tinyshakespeare",
    {"input.txt": "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"},
)


@dataclass(frozen=True, config=STRICT)
class TextData:
    """Which part of the text is used, and how it is cut."""

    folder: str | None = None
    """Folder that holds tiny Shakespeare's input.txt; else $TODM_DATA/tinyshakespeare or a download."""
    characters: Count = 50_000
    """Length of the training text, taken from the start: the less, the sooner a net overfits."""
    held_out: Count = 20_000
    """Length of the dev text, and of the test text, which follows it at the end of the whole."""
    context: Count = 64
    """Characters a net sees at once."""
    batch: Count = 16
    """Windows in a training batch."""


class CharGPT(nn.Module):
    """Symbols (batch, time) -> logits of the next one (batch, time, symbols)."""

    def __init__(self, config: TransformerConfig, symbols: int, context: int) -> None:
        super().__init__()
        self.trunk = Transformer(config, symbols, context, causal=True)
        self.head = ElasticLinear(self.trunk.width, symbols)

    def forward(self, symbols: Tensor) -> Tensor:
        return self.head(self.trunk(symbols))


class CharGPTTask(PlainTask):
    """Predict the next character.

    Args:
        data: Which text.
        model: Sizes.
        seed: Of the order of training windows.
        cache: Where a download is kept.

    Raises:
        TodmError: the text is missing, or shorter than the parts asked for.
    """

    Data = TextData
    Model = TransformerConfig
    pipeline = "text-generation"
    unit = "nats"
    chunk = 100

    def __init__(self, data: TextData, model: TransformerConfig, seed: int, cache: Path) -> None:
        self.data, self.config, self.seed = data, model, seed
        text = (SHAKESPEARE.fetch(data.folder, cache) / "input.txt").read_text(encoding="utf-8")
        if data.characters + 2 * data.held_out > len(text):
            raise TodmError(
                f"the text has {len(text)} characters, fewer than data.characters + 2 data.held_out: lower either"
            )
        self.symbols = sorted(set(text))
        index = {symbol: i for i, symbol in enumerate(self.symbols)}
        ids = torch.tensor([index[symbol] for symbol in text])
        train, dev, test = ids[: data.characters], ids[-2 * data.held_out : -data.held_out], ids[-data.held_out :]
        self.train = train
        self.windows = {"dev": _windows(dev, data.context), "test": _windows(test, data.context)}

    def provenance(self) -> dict[str, str]:
        """Which text was used, for run.json."""
        return {
            "source": f"tiny Shakespeare, its first {self.data.characters} characters",
            "licence": "unlicense", "sha256": SHAKESPEARE.files["input.txt"],
        }  # fmt: skip

    def build(self) -> CharGPT:
        """The supernet."""
        return CharGPT(self.config, len(self.symbols), self.data.context)

    def train_batches(self, start: int) -> Iterator[Tensor]:
        """Windows (batch, context + 1) at random places, a function of (seed, index)."""
        offsets = torch.arange(self.data.context + 1)
        index = start
        while True:
            random = torch.Generator().manual_seed(self.seed * 1_000_003 + index)
            places = torch.randint(len(self.train) - self.data.context, (self.data.batch, 1), generator=random)
            yield self.train[places + offsets]
            index += 1

    def loss(self, model: nn.Module, batch: Tensor) -> LossOutput:
        """Mean cross-entropy in nats a character."""
        batch = batch.to(next(model.parameters()).device)
        logits, targets = model(batch[:, :-1]).float(), batch[:, 1:]
        return LossOutput(
            F.cross_entropy(logits.flatten(0, 1), targets.flatten()), logits,
            torch.full(targets.shape, 1 / targets.numel(), device=logits.device),
        )  # fmt: skip

    def samples(self, split: str) -> dict[str, Tensor]:
        """Consecutive windows of a held-out text (windows, context)."""
        return {"symbols": self.windows[split][:, :-1]}

    def metrics(self, outputs: Tensor, split: str) -> dict[str, float]:
        """Cross-entropy in nats a character."""
        targets = self.windows[split][: len(outputs), 1:]
        return {"loss": float(F.cross_entropy(outputs.flatten(0, 1), targets.flatten()))}

    def decisions(self, outputs: Tensor) -> list[str]:
        """The likeliest next characters of each window."""
        return ["".join(self.symbols[i] for i in row) for row in outputs.argmax(-1).tolist()]


def _windows(text: Tensor, context: int) -> Tensor:
    """A text cut into windows (windows, context + 1) that overlap by the one character that is target only."""
    return text.unfold(0, context + 1, context)
