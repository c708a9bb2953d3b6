import torch
from torch import nn

from todm.plain_task import PlainTask
from todm.program import eager


class Sums(nn.Module):
    """Two inputs, as a model of tokens and a mask has."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, x, y):
        return self.scale * (x + y)


class SumTask(PlainTask):
    output, chunk = "sums", 3

    def samples(self, split):
        x = torch.arange(20.0).view(10, 2) if split == "dev" else torch.ones(7, 2)
        return {"x": x, "y": 10 * x}

    def metrics(self, outputs, split):
        return {"mean": outputs.mean().item()}

    def decisions(self, outputs):
        return [f"{row.sum():.0f}" for row in outputs]


def test_a_model_and_its_program_score_the_same():
    task, model = SumTask(), Sums()
    assert task.evaluate(model, "dev") == {"mean": 11 * 9.5}
    program = task.program(model)
    (method,) = program.methods
    assert (method.name, list(method.inputs), method.outputs) == ("forward", ["x", "y"], ("sums",))
    assert [list(x.shape) for x in method.inputs.values()] == [[1, 2], [1, 2]]
    score = task.score(program, eager(program), "dev")
    assert score.metrics == {"mean": 11 * 9.5}
    assert score.outputs[:2] == ["11", "55"]
    assert task.score(program, eager(program), "test").outputs == ["22"] * 7
