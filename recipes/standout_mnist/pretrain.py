"""Layer-wise pre-training: each hidden layer, from the lowest up, learns to undo noise (Vincent et al. 2008)."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field, NonNegativeInt
from pydantic.dataclasses import dataclass
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss, relu
from tqdm import tqdm

from todm.files import atomic_write
from todm.recipe import STRICT, Count, Positive


@dataclass(frozen=True, config=STRICT)
class Pretraining:
    """How hidden layers are trained without labels."""

    epochs: NonNegativeInt = 0
    """Passes over the training pictures for each layer; 0 for no pre-training."""
    noise: Annotated[float, Field(ge=0, lt=1)] = 0.25
    """Share of a layer's inputs that is set to zero."""
    lr: Positive = 1e-3
    """Learning rate of AdamW."""
    batch: Count = 256
    """Pictures in a batch."""


def pretrained(sizes: list[int], pictures: Tensor, config: Pretraining, seed: int, cache: Path) -> list[nn.Linear]:
    """Hidden layers, the lowest first; made once and kept in `cache` for every run with the same arguments.

    Args:
        sizes: Width of the input and of each hidden layer.
        pictures: (pictures, sizes[0]), uint8.
        seed: Of initial weights, order and noise.
    """
    digest = hashlib.sha256(pictures.numpy().tobytes())
    digest.update(json.dumps([sizes, asdict(config), seed]).encode())  # type: ignore[call-overload]
    path = cache / f"pretrained-{digest.hexdigest()[:16]}.safetensors"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = [nn.Linear(inputs, outputs) for inputs, outputs in pairwise(sizes)]
        if not path.exists():
            for index, layer in enumerate(layers):
                _denoise(layers[:index], layer, pictures, config)
            atomic_write(path, save(nn.ModuleList(layers).state_dict()))
    nn.ModuleList(layers).load_state_dict(load_file(path))
    return layers


def _denoise(below: list[nn.Linear], layer: nn.Linear, pictures: Tensor, config: Pretraining) -> None:
    """Train one layer, and a decoder that is thrown away, on what the layers below make of the pictures."""
    decoder = nn.Linear(layer.out_features, layer.in_features)
    optimizer = torch.optim.AdamW([*layer.parameters(), *decoder.parameters()], config.lr, fused=True)
    # Pixels are in 0..1 and mostly at one end; hidden activities have no upper bound.
    distance = mse_loss if below else binary_cross_entropy_with_logits
    for rows in tqdm(list(_batches(len(pictures), config)), f"pre-training layer {len(below) + 1}"):
        with torch.autocast("cpu", torch.bfloat16):
            x = pictures[rows].float() / 255
            with torch.no_grad():
                for lower in below:
                    x = relu(lower(x))
            noisy = x * (torch.rand(x.shape) >= config.noise)
            restored = decoder(relu(layer(noisy)))
        optimizer.zero_grad()
        distance(restored.float(), x.float()).backward()
        optimizer.step()


def _batches(count: int, config: Pretraining) -> Iterator[Tensor]:
    for _ in range(config.epochs):
        yield from torch.randperm(count).split(config.batch)
