"""Training in several processes, as torchrun starts them: what they share, and what each does by itself.

Every process draws the same architectures and holds the same weights. A batch is split between them, each part counts
by its share of the whole, and the gradients are summed once an update, whatever the number of nets.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from todm.errors import TodmError

Item = TypeVar("Item")


@dataclass(frozen=True)
class Shard:
    """The part of each batch that one of several processes works on."""

    rank: int = 0
    world: int = 1

    def of(self, items: Sequence[Item]) -> Sequence[Item]:
        """Every `world`-th item from the `rank`-th on: neighbours in length go to different processes.

        Raises:
            TodmError: there are fewer items than processes.
        """
        if len(items) < self.world:
            raise TodmError(f"a batch of {len(items)} cannot be split between {self.world} processes; enlarge batches")
        return items[self.rank :: self.world]


WHOLE = Shard()


def processes() -> Shard:
    """Join the group that torchrun announces in the environment; a single process where there is none."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return WHOLE
    if not dist.is_initialized():
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    return Shard(dist.get_rank(), dist.get_world_size())


def barrier() -> None:
    """Wait for all processes."""
    if dist.is_initialized():
        with _together():
            dist.barrier()


def totals(values: Sequence[float]) -> list[float]:
    """Numbers summed over all processes, each for itself."""
    if not dist.is_initialized():
        return list(values)
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    tensor = torch.tensor(values, dtype=torch.float64, device=device)
    with _together():
        dist.all_reduce(tensor)
    return tensor.tolist()


def sum_gradients(model: nn.Module, share: float) -> None:
    """Make every gradient the sum over all processes, each times its `share` of the batch; one message.

    The processes train the same architectures, so the same parameters have a gradient in all of them.
    """
    if not dist.is_initialized():
        return
    grads: dict[torch.dtype, list[Tensor]] = {}
    for parameter in model.parameters():
        if parameter.grad is not None:
            grads.setdefault(parameter.grad.dtype, []).append(parameter.grad)
    for some in grads.values():
        flat = torch.cat([grad.reshape(-1) for grad in some]).mul_(share)
        with _together():
            dist.all_reduce(flat)
        parts = flat.split([grad.numel() for grad in some])
        torch._foreach_copy_(some, [part.view_as(grad) for part, grad in zip(parts, some, strict=True)])


@contextmanager
def _together() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise TodmError("another process of this training stopped; go on with --resume auto") from error
