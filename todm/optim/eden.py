"""Eden learning-rate schedule (Yao et al., "Zipformer", ICLR 2024, section 3.5; numbers as in icefall)."""

from typing import Any

from torch.optim import Optimizer

from todm.errors import TodmError


class Eden:
    """Rate = base rate * ((b/B)^2 + 1)^-1/4 * ((e/E)^2 + 1)^-1/4 * warm-up, at batch b and epoch e.

    B is `lr_batches`, E `lr_epochs`; epochs may be fractional. Warm-up rises from `warmup_start` to 1 over
    `warmup_batches`. The base rates, the optimiser's at construction, hold until the first step; its groups
    keep them as `initial_lr`, lest a schedule made after a resume take decayed rates for them.
    Raises TodmError if `lr_batches` or `lr_epochs` is not positive.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        lr_batches: float,
        lr_epochs: float,
        warmup_batches: float = 500,
        warmup_start: float = 0.5,
    ) -> None:
        if lr_batches <= 0 or lr_epochs <= 0:
            raise TodmError(f"Eden needs lr_batches and lr_epochs above 0, not {lr_batches} and {lr_epochs}")
        self.optimizer = optimizer
        self.lr_batches, self.lr_epochs = lr_batches, lr_epochs
        self.warmup_batches, self.warmup_start = warmup_batches, warmup_start
        self.batch: float = 0
        self.epoch: float = 0
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])

    def step_batch(self, batch: float | None = None) -> None:
        """Set the rates for batch number `batch`, by default the one after the last."""
        self.batch = self.batch + 1 if batch is None else batch
        self._set_rates()

    def step_epoch(self, epoch: float | None = None) -> None:
        """Set the rates for epoch `epoch`, by default the one after the last."""
        self.epoch = self.epoch + 1 if epoch is None else epoch
        self._set_rates()

    def state_dict(self) -> dict[str, Any]:
        """Where the schedule stands; the rates, base rates included, are part of the optimiser's state."""
        return {"batch": self.batch, "epoch": self.epoch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state` at the next step."""
        self.batch, self.epoch = state["batch"], state["epoch"]

    def _set_rates(self) -> None:
        decay = (((self.batch / self.lr_batches) ** 2 + 1) * ((self.epoch / self.lr_epochs) ** 2 + 1)) ** -0.25
        warmed = min(1.0, self.batch / self.warmup_batches) if self.warmup_batches else 1.0
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * decay * (self.warmup_start + (1 - self.warmup_start) * warmed)
