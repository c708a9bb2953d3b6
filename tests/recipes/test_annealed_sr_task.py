"""The task of the recipe annealed_sr: patches that fit, figures that are those of their definition, tiles that agree."""

import random
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from todm import SearchSpace, activate, extract
from todm.dropout import Rates, install
from todm.program import eager
from todm.recipe import load_recipe
from todm.recipes.annealed_sr import task as module
from todm.recipes.annealed_sr.degrade import UNSEEN, Degradation, halved
from todm.recipes.annealed_sr.model import Upscaler, UpscalerConfig
from todm.recipes.annealed_sr.psnr import psnr
from todm.recipes.annealed_sr.task import PictureData, UpscaleTask


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Smooth pictures of several sizes: nine to train on and two of each test set."""
    home = tmp_path_factory.mktemp("sr")
    for seed, name in enumerate([f"T91/t{i}" for i in range(9)] + ["Set5/a", "Set5/b", "Set14/a", "Set14/b"]):
        rng = np.random.default_rng(seed)
        noise = ndimage.gaussian_filter(rng.normal(size=(80 + 4 * seed, 100, 3)), (3, 3, 0))
        path = home / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.rint(128 + 100 * noise / np.abs(noise).max()).astype(np.uint8)).save(path)
    return home


@pytest.fixture(scope="module")
def task(folder) -> UpscaleTask:
    return UpscaleTask(PictureData(folder=str(folder), batch=4, proved=2), UpscalerConfig(), 3, folder)


def bend(model: torch.nn.Module) -> torch.nn.Module:
    """A freshly initialised net answers almost as its shortcut does; this one does not."""
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model


def test_an_extracted_net_is_the_supernets_and_doubles_any_picture():
    torch.manual_seed(0)
    model = bend(Upscaler(UpscalerConfig())).eval()
    space, rng, x = SearchSpace.of(model), random.Random(0), torch.rand(2, 1, 10, 14)
    sizes = set()
    for arch in [space.smallest(), space.largest(), *(space.sample(rng) for _ in range(6))]:
        activate(model, arch)
        subnet = extract(model, arch)
        with torch.no_grad():
            assert model(x).shape == (2, 1, 20, 28)
            assert torch.allclose(model(x), subnet(x), atol=1e-6)
        sizes.add(sum(weight.numel() for weight in subnet.parameters()))
    assert len(sizes) > 4


def test_batches_are_a_function_of_seed_and_index(task, folder):
    first, resumed = list(islice(task.train_batches(0), 4)), next(task.train_batches(3))
    assert first[0][0].shape == (4, 1, 24, 24) and first[0][1].shape == (4, 1, 48, 48)
    assert torch.equal(first[3][0], resumed[0]) and torch.equal(first[3][1], resumed[1])
    assert not torch.equal(first[2][1], resumed[1])
    other = UpscaleTask(task.data, task.model, 4, folder)
    assert not torch.equal(next(other.train_batches(3))[1], resumed[1])


def test_small_and_large_patches_show_the_same(task, monkeypatch):
    monkeypatch.setattr(module, "training_mix", lambda rng: Degradation())
    small, large = next(task.train_batches(0))
    for low, high in zip(small[:, 0].numpy(), large[:, 0].numpy(), strict=True):
        rounding = 0.51 / 255
        inside = slice(2, -2)  # elsewhere the cubic looks beyond the patch
        assert np.abs(halved(high)[inside, inside] - low[inside, inside]).max() < rounding


def test_held_out_pictures_are_not_trained_on(task):
    assert (len(task.kept), len(task.train), len(task.test)) == (2, 7, 4)
    assert not {id(picture) for picture in task.kept} & {id(picture) for picture in task.train}


def test_figures_are_means_over_pictures_and_degradations(task):
    """Of the net that repeats each pixel, which is what its shortcut does alone."""
    model = Upscaler(UpscalerConfig()).eval()
    torch.nn.init.zeros_(model.tail.weight)
    torch.nn.init.zeros_(model.tail.bias)
    found = task.evaluate(model, "test")
    values = {}
    for number, (name, degradation) in enumerate(({"clean": Degradation()} | UNSEEN).items()):
        values[name] = []
        for index, large in enumerate(task.test):
            small = degradation(large, np.random.default_rng([1, index, number]))
            values[name].append(psnr(large, small.repeat(2, 0).repeat(2, 1), 2))
    for name, each in values.items():
        assert found[f"psnr_{name}"] == pytest.approx(np.mean(each), abs=1e-9)
    assert found["psnr"] == pytest.approx(np.mean([values[name] for name in UNSEEN]), abs=1e-9)
    assert next(iter(found)) == "rmse" and found["rmse"] == pytest.approx(255 * 10 ** (-found["psnr"] / 20))
    assert {"psnr_seen", "psnr_clean"} <= found.keys()
    assert list(task.evaluate(model, "dev")) == ["rmse", "psnr"]


def test_a_program_scores_in_tiles_what_the_net_does(task):
    torch.manual_seed(0)
    model = Upscaler(UpscalerConfig()).eval()
    program = task.program(extract(model, SearchSpace.of(model).largest()))
    score = task.score(program, eager(program), "dev")
    assert list(score.metrics) == ["rmse", "psnr"]
    # Only at the rim of a picture does a tile show the net something else.
    assert score.metrics["psnr"] == pytest.approx(task.evaluate(model, "dev")["psnr"], abs=0.3)
    assert len(score.outputs) == 4 and all(len(text.partition(".")[2]) == 2 for text in score.outputs)
    assert len(task.score(program, eager(program), "test").outputs) == 2 * len(UNSEEN)


def test_the_recipe_anneals_block_by_block_from_the_shallowest():
    recipe, _ = load_recipe("annealed_sr")
    model = Upscaler(UpscalerConfig())
    install(model, recipe.dropout)
    rates, period = Rates(model, total=recipe.training.updates), 83
    mixed = []
    for update in (0, period - 1, period, 3.5 * period, 6 * period - 1, 6 * period):
        rates.step(update)
        mixed.append([float(block.drop.method.weight) for block in model.blocks])
    start = [0.3] * 6
    assert 6 * period < recipe.training.updates / 2  # the rest is trained as it will be used
    assert mixed == [start, start, [1.0, *start[1:]], [1.0] * 3 + start[3:], [1.0] * 5 + start[5:], [1.0] * 6]
