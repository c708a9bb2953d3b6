"""ScaledAdam where it is used: under autocast, and with gradients summed by DistributedDataParallel."""

import os
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from todm.optim import ScaledAdam


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 3)).double()


def train(model: nn.Module, rows: torch.Tensor, updates: int = 20) -> None:
    optimizer = ScaledAdam(model.parameters(), clipping_scale=2.0)
    for update in range(updates):
        optimizer.zero_grad()
        model(rows + 0.1 * update).square().mean().backward()
        optimizer.step()


def one_of_two(rank: int, folder: str) -> None:
    """A process of a group of two: half the rows each, the gradient is their mean."""
    os.environ["OMP_NUM_THREADS"] = "1"
    dist.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=2)
    model = DistributedDataParallel(net())
    rows = torch.randn(8, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    train(model, rows[rank::2])
    torch.save(model.module.state_dict(), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_of_distributed_data_parallel_are_one(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(one_of_two, (str(tmp_path),), nprocs=2)  # type: ignore[attr-defined]
    whole = net()
    train(whole, torch.randn(8, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))
    for rank in range(2):
        state = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for name, value in whole.state_dict().items():
            torch.testing.assert_close(state[name], value, rtol=0, atol=1e-12)


def test_under_autocast_weights_and_state_stay_in_float32_and_it_learns() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 1))
    optimizer = ScaledAdam(model.parameters(), clipping_scale=2.0)
    x = torch.randn(64, 6)
    y, losses = x[:, :1] * x[:, 1:2], []
    for _ in range(150):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            out = model(x)
        assert out.dtype == torch.bfloat16
        loss = (out.float() - y).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]
    for p in model.parameters():
        assert p.dtype == torch.float32
        assert all(value.dtype == torch.float32 for value in optimizer.state[p].values())
