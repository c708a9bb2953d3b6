"""Which nets an update trains while the family grows, and the settings of it that contradict each other."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from run_folder import log_of
from toy_task import ToyData, ToyModel, ToyTask

from todm.recipe import Training
from todm.trainer import Trainer

CONFIG = Training(
    updates=20, warmup=10, growth=0.25, divergence="adaptive", distillation_start=0.5, average=0.9,
    precision="float32", lr=0.05,
)  # fmt: skip


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
    "nets", [{"growing": "ends"}, {"growing": "largest"}, {"nets": "alone", "arch": "largest"}], ids=str
)
def test_a_net_is_deep_once_it_has_grown(tmp_path, nets):
    made = trainer(tmp_path, replace(CONFIG, updates=10, growth=0.6, distillation_start=0.8, **nets))
    depths, loss = [[] for _ in range(10)], made.task.loss

    def watched(model, batch):
        depths[made.update].append(len(model.blocks))
        return loss(model, batch)

    made.task.loss = watched
    made.fit()
    assert [found[0] for found in depths] == [1] * 6 + [3] * 4
    assert [len(found) for found in depths[:6]] == ([1, 2] * 3 if nets.get("growing") == "ends" else [1] * 6)


def test_growth_of_both_ends_trains_the_smallest_net_in_every_second_update(tmp_path):
    config = replace(CONFIG, updates=6, growth=0.7, distillation_start=0.8, growing="ends", average=0.0)
    trainer(tmp_path, config).fit()
    nets = [{key for key in row if key.startswith("loss")} for row in log_of(tmp_path)]
    assert nets[:4] == [{"loss_largest"}, {"loss_largest", "loss_smallest"}] * 2
    assert nets[4:] == [{"loss_largest"}, {"loss_largest", "loss_smallest", "loss_random_0"}]


def test_students_take_turns_after_growth(tmp_path):
    config = replace(CONFIG, updates=8, growth=0.0, students=0.5, average=0.0)
    trainer(tmp_path, config).fit()
    nets = [{key for key in row if key.startswith("loss")} for row in log_of(tmp_path)]
    whole = [{"loss_largest"}, {"loss_largest", "loss_smallest"}, {"loss_largest"}, {"loss_largest", "loss_random_0"}]
    assert nets == whole * 2
    with pytest.raises(ValueError, match="students is for nets: sandwich"):
        replace(CONFIG, nets="random", students=1.0)


def test_what_does_not_grow_at_both_ends_is_refused():
    with pytest.raises(ValueError, match="a net trained alone has no smaller one beside it"):
        replace(CONFIG, nets="alone", arch="largest", growing="ends")
    with pytest.raises(ValueError, match="growing: ends does nothing without growth"):
        replace(CONFIG, growth=0.0, growing="ends")


def test_between_growth_and_the_start_of_students_the_largest_net_learns_alone(tmp_path):
    config = replace(CONFIG, updates=10, growth=0.2, growing="ends", students=1.0, students_start=0.5, average=0.0)
    trainer(tmp_path, config).fit()
    nets = [{key.removeprefix("loss_") for key in row if key.startswith("loss")} for row in log_of(tmp_path)]
    assert nets[:5] == [{"largest"}, {"largest", "smallest"}] + [{"largest"}] * 3
    assert nets[5:] == [{"largest", "random_0"}, {"largest", "smallest"}] * 2 + [{"largest", "random_0"}]
    with pytest.raises(ValueError, match="students_start is for nets: sandwich"):
        replace(CONFIG, nets="random", students_start=0.5)
    with pytest.raises(ValueError, match="students_start is within growth, where it does nothing"):
        replace(CONFIG, growth=0.3, students_start=0.3)
