"""Which nets an update trains while the family grows, and the settings of it that contradict each other."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from run_folder import log_of
from toy_task import ToyData, ToyModel, ToyTask

from todm.recipe import Training
from todm.trainer import Trainer

CONFIG = Training(updates=20, warmup=10, growth=0.25, distillation_start=0.5, average=0.9, precision="float32", lr=0.05)


def trainer(folder: Path, config: Training) -> Trainer:
    return Trainer(ToyTask(ToyData(), ToyModel(), 0, folder), config, folder, 0)


def test_growth_trains_the_shallowest_net_alone(tmp_path):
    made = trainer(tmp_path, replace(CONFIG, updates=20, growth=1.0, distillation_start=1.0))
    before = {name: p.clone() for name, p in made.model.state_dict().items()}
    sizes, loss = set(), made.task.loss

    def watched(model, batch):
        sizes.add((len(model.blocks), int(model.blocks[0].up.width_out)))
        return loss(model, batch)

    made.task.loss = watched
    made.fit()
    moved = {name for name, p in made.model.state_dict().items() if not torch.equal(p, before[name])}
    assert moved == {name for name in before if not name.startswith(("blocks.1.", "blocks.2."))}
    assert sizes == {(1, 32)}  # at full width


@pytest.mark.parametrize(
    "nets", [{"growing": "ends", "students": 1.0}, {"growing": "largest"}, {"nets": "alone", "arch": "largest"}]
)
def test_growth_goes_through_all_depths(tmp_path, nets):
    config = replace(CONFIG, updates=10, growth=0.8, deepening=0.5, distillation_start=0.8, **nets)
    made = trainer(tmp_path, config)
    depths, loss = [[] for _ in range(10)], made.task.loss

    def watched(model, batch):
        depths[made.update].append(len(model.blocks))
        return loss(model, batch)

    made.task.loss = watched
    made.fit()
    assert [found[0] for found in depths] == [1, 1, 1, 1, 1, 2, 2, 3, 3, 3]
    beside = [len(found) - 1 for found in depths]
    if "students" in nets:
        assert beside == [1] * 10
        assert all(found[1] <= found[0] for found in depths)
        assert max(found[1] for found in depths) > 1
    else:
        assert beside[:8] == [0] * 8


def test_growth_of_both_ends_trains_the_smallest_net_from_the_start(tmp_path):
    config = replace(CONFIG, updates=4, growth=0.5, growing="ends", average=0.0)
    trainer(tmp_path, config).fit()
    nets = [{key for key in row if key.startswith("loss")} for row in log_of(tmp_path)]
    assert nets == [{"loss_largest", "loss_smallest"}] * 2 + [{"loss_largest", "loss_smallest", "loss_random_0"}] * 2
    trainer(tmp_path / "in turn", replace(config, students=0.5)).fit()
    nets = [{key for key in row if key.startswith("loss")} for row in log_of(tmp_path / "in turn")]
    assert nets == [
        {"loss_largest"},
        {"loss_largest", "loss_smallest"},
        {"loss_largest"},
        {"loss_largest", "loss_random_0"},
    ]
    with pytest.raises(ValueError, match="a net trained alone has no smaller one beside it"):
        replace(CONFIG, nets="alone", arch="largest", growing="ends")
    with pytest.raises(ValueError, match="growing: ends does nothing without growth"):
        replace(CONFIG, growth=0.0, growing="ends")
    with pytest.raises(ValueError, match="deepening is a part of growth"):
        replace(CONFIG, growth=0.0, deepening=0.5)
    with pytest.raises(ValueError, match="students is for nets: sandwich"):
        replace(CONFIG, nets="random", students=1.0)
