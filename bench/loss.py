"""Joiner and transducer loss, forward and backward, at (8, 200, 40, 500), every utterance of full length.

With the demo's joiner width, 64, and that of a 30 M network, 512. Inputs are normal random numbers. A freshly
initialised joiner spreads alignments wide, as none does for long: the wide one is also measured after a few updates.
How far float32 gradients are from float64 depends on the joiner's own rounding: `float64` is the loss in float64
between the same two float32 passes of the joiner.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from bench.measure import measured
from todm.speech import joint_rnnt_loss, pruned_rnnt_loss, rnnt_loss

BATCH, TIME, LABELS, VOCABULARY = 8, 200, 40, 500
BAND = 5
UPDATES = 5
"""Of a joiner that has begun to learn."""


class Problem:
    """Inputs of one size, and the losses that are compared on them."""

    def __init__(self, size: int, batch: int = BATCH, updates: int = 0) -> None:
        torch.manual_seed(0)
        self.joiner = nn.Sequential(nn.Tanh(), nn.Linear(size, VOCABULARY))
        self.simple = nn.ModuleList(nn.Linear(size, VOCABULARY) for _ in range(2))
        self.encoded = torch.randn(batch, TIME, size).requires_grad_()
        self.predicted = torch.randn(batch, LABELS + 1, size).requires_grad_()
        targets = torch.randint(1, VOCABULARY, (batch, LABELS))
        self.labels = targets, torch.full((batch,), TIME), torch.full((batch,), LABELS)
        optimizer = torch.optim.Adam(self.joiner.parameters(), lr=3e-3)
        for _ in range(updates):
            optimizer.zero_grad()
            self.fused().backward(inputs=list(self.joiner.parameters()))
            optimizer.step()

    def logits(self) -> Tensor:
        return self.joiner(self.encoded[:, :, None] + self.predicted[:, None])

    def torchaudio(self) -> Tensor:
        from torchaudio.functional import rnnt_loss as reference  # a compiled wheel, which may not fit this torch

        return reference(self.logits(), *(x.int() for x in self.labels), blank=0, reduction="sum")

    def plain(self) -> Tensor:
        return rnnt_loss(self.logits(), *self.labels).sum()

    def float64(self) -> Tensor:
        return rnnt_loss(self.logits().double(), *self.labels).sum()

    def fused(self) -> Tensor:
        return joint_rnnt_loss(self.encoded, self.predicted, self.joiner, *self.labels).sum()

    def pruned(self) -> Tensor:
        simple, pruned = pruned_rnnt_loss(
            self.encoded, self.predicted, self.joiner, *self.labels, band=BAND,
            simple_encoder=self.simple[0], simple_predictor=self.simple[1],
        )  # fmt: skip
        return 0.5 * simple.sum() + pruned.sum()

    def gradients(self, loss: Callable[["Problem"], Tensor]) -> list[Tensor]:
        """Of the encoder, the predictor and the joiner."""
        return list(torch.autograd.grad(loss(self), [self.encoded, self.predicted, *self.joiner.parameters()]))


LOSSES = {
    "torchaudio": Problem.torchaudio, "plain": Problem.plain, "fused": Problem.fused, "pruned": Problem.pruned,
    "float64": Problem.float64,
}  # fmt: skip
BARS = {"plain": (0.4, 1.1), "fused": (0.4, 1.1), "pruned": (0.15, 0.3)}


def case(name: str, size: int, updates: int = 0) -> dict[str, float]:
    """Time and memory of a loss with its gradients; for exact ones, the largest difference from float64."""
    loss = LOSSES[name]
    Problem(size, batch=1).gradients(loss)  # what is loaded on first use
    problem = Problem(size, updates=updates)
    row = measured(lambda: problem.gradients(loss), repeats=2)
    if name != "pruned":
        small, exact = (Problem(size, batch=2, updates=updates) for _ in range(2))
        exact.joiner.double()
        for key in ("encoded", "predicted"):
            setattr(exact, key, getattr(small, key).detach().double().requires_grad_())
        row["difference"] = max(
            float((a - b).abs().max() / b.abs().max())
            for a, b in zip(small.gradients(loss), exact.gradients(Problem.plain), strict=True)
        )
    return row


def found(name: str) -> bool:
    """Whether a loss can be run here."""
    try:
        return name != "torchaudio" or bool(__import__(name))
    except (ImportError, OSError):
        return False


GROUPS = {"joiner 64": (64, 0), "joiner 512": (512, 0), f"joiner 512 after {UPDATES} updates": (512, UPDATES)}
CASES = {group: {name: partial(case, name, *of) for name in LOSSES if found(name)} for group, of in GROUPS.items()}
