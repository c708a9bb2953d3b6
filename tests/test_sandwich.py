"""One update's gradients are the sum over its nets, and the teacher learns nothing from being imitated."""

import random

import pytest
import torch
from toy_task import Net, ToyData, ToyModel, ToyTask

from todm import SearchSpace, activate
from todm.distill import divergence
from todm.sandwich import accumulate_gradients, in_turn, sandwich
from todm.task import LossOutput


@pytest.fixture
def task(tmp_path) -> ToyTask:
    return ToyTask(ToyData(), ToyModel(dropout=0.0), 0, tmp_path)


@pytest.fixture
def model(task) -> Net:
    torch.manual_seed(0)
    return task.build()


def test_each_update_has_the_ends_and_random_nets(model):
    space, rng = SearchSpace.of(model), random.Random(0)
    archs = sandwich(space, rng, 3)
    assert list(archs) == ["largest", "smallest", "random_0", "random_1", "random_2"]
    assert archs["largest"] == space.largest()
    assert archs["smallest"] == space.smallest()
    drawn = [arch for _ in range(50) for name, arch in sandwich(space, rng, 3).items() if "random" in name]
    assert len({str(space.check(arch)) for arch in drawn}) > 40
    assert list(sandwich(space, rng, 0)) == ["largest", "smallest"]


@pytest.mark.parametrize("strength", [0.0, 0.7])
@pytest.mark.parametrize(
    "apart", [divergence("adaptive"), lambda student, teacher: (student - teacher).square().mean(-1)]
)
def test_gradients_are_the_mean_of_each_net_s_own(task, model, strength, apart):
    batch, archs = next(task.train_batches(0)), sandwich(SearchSpace.of(model), random.Random(1), 2)
    log = accumulate_gradients(model, task.loss, batch, archs, apart, strength)
    together = {name: p.grad.clone() for name, p in model.named_parameters()}

    activate(model, archs["largest"])
    teacher = task.loss(model, batch).detach()
    expected, distances = {name: torch.zeros_like(p) for name, p in model.named_parameters()}, []
    for name, arch in archs.items():
        model.zero_grad()
        activate(model, arch)
        output = task.loss(model, batch)
        assert log[f"loss_{name}"] == output.loss.item()
        distance = (apart(output.logits, teacher.logits) * teacher.weight).sum()
        distances.append(distance.item())
        (output.loss + (strength * distance if name != "largest" else 0)).backward()
        for key, p in model.named_parameters():
            expected[key] += 0 if p.grad is None else p.grad / len(archs)
    assert all(torch.allclose(together[name], grad, atol=1e-6) for name, grad in expected.items())
    assert distances[0] == pytest.approx(0, abs=1e-6)
    if strength:
        assert log["divergence"] == pytest.approx(sum(distances[1:]) / 3, rel=1e-5)
        assert log["divergence"] > 0
    else:
        assert "divergence" not in log


def test_padding_teaches_nothing(task, model):
    """Positions of weight zero do not reach the student, whatever the teacher says there."""
    batch, archs = next(task.train_batches(0)), sandwich(SearchSpace.of(model), random.Random(1), 0)

    def loss(model, batch):
        output = task.loss(model, batch)
        weight = torch.zeros_like(output.weight)
        return LossOutput(output.loss * 0, output.logits, weight)

    accumulate_gradients(model, loss, batch, archs, divergence("kl"), 5.0)
    assert all(p.grad.abs().max() == 0 for p in model.parameters() if p.grad is not None)


def test_one_graph_lives_at_a_time(task, model):
    """What the first net kept for its backward pass is gone before the second runs."""
    alive: list[int] = []

    def loss(model, batch):
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(Kept(t)) or kept[-1], lambda k: k.tensor):
            output = task.loss(model, batch)
        alive.append(Kept.count)
        return output

    class Kept:
        count = 0

        def __init__(self, tensor):
            self.tensor = tensor
            Kept.count += 1

        def __del__(self):
            Kept.count -= 1

    archs = {name: SearchSpace.of(model).largest() for name in "abc"}
    accumulate_gradients(model, loss, next(task.train_batches(0)), archs, divergence("kl"), 1.0)
    assert alive[0] > 10
    assert alive == [alive[0]] * 3


def test_another_teacher_is_imitated_in_place_of_the_largest_net(task, model):
    batch, archs = next(task.train_batches(0)), sandwich(SearchSpace.of(model), random.Random(1), 0)
    activate(model, archs["smallest"])
    own = task.loss(model, batch).detach()
    apart = divergence("kl")
    log = accumulate_gradients(model, task.loss, batch, archs, apart, 1.0, own)
    assert log["divergence"] == pytest.approx(0, abs=1e-6)
    assert accumulate_gradients(model, task.loss, batch, archs, apart, 1.0)["divergence"] > 1e-4


def test_students_take_turns(model):
    archs = sandwich(SearchSpace.of(model), random.Random(0), 2)
    turns = [list(in_turn(archs, 1, update)) for update in range(4)]
    assert turns == [["largest", name] for name in ("smallest", "random_0", "random_1", "smallest")]
    assert list(in_turn(archs, 2, 1)) == ["largest", "smallest", "random_1"]
    assert in_turn(archs, 3, 5) == in_turn(archs, 7, 0) == archs
    seldom = [list(in_turn(archs, 0.5, update))[1:] for update in range(6)]
    assert seldom == [[], ["smallest"], [], ["random_0"], [], ["random_1"]]
    assert sum(len(in_turn(archs, 0.3, update)) - 1 for update in range(1000)) == 300
