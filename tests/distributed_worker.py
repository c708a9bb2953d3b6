"""One of the processes of tests/test_distributed.py: fifty updates of the toy in float64, without dropout."""

import sys
from pathlib import Path

import torch
from toy_task import ToyData, ToyModel, ToyTask

from todm.distributed import barrier, processes
from todm.recipe import Training
from todm.trainer import Trainer

CONFIG = Training(
    updates=50, warmup=10, growth=0.1, divergence="adaptive", distillation_start=0.2, precision="float32", lr=0.05,
    checkpoint_every=50,
)  # fmt: skip


def train(folder: Path) -> None:
    torch.set_default_dtype(torch.float64)
    task = ToyTask(ToyData(uneven=True), ToyModel(dropout=0.0), 0, folder)
    Trainer(task, CONFIG, folder, 0, shard=processes()).fit()
    barrier()


if __name__ == "__main__":
    train(Path(sys.argv[1]))
