"""Tasks whose model has one method, `forward`, on a batch of samples: classifiers, encoders, language models."""

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from todm.program import Method, Methods, Program
from todm.task import Score


class PlainTask(ABC):
    """Evaluation and export of a model with one `forward`, from the samples of a split and the metrics of its outputs.

    A subclass gives `samples`, `metrics` and `decisions` beside what training needs: `build`, `train_batches`, `loss`
    and `provenance`.
    """

    output = "logits"
    """Name of the model's output in exported files."""
    chunk = 1000
    """Samples evaluated at once."""

    @abstractmethod
    def samples(self, split: str) -> dict[str, Tensor]:
        """Inputs of `dev` or `test` by name, in the order of `forward`'s arguments, each (samples, ...)."""

    @abstractmethod
    def metrics(self, outputs: Tensor, split: str) -> dict[str, float]:
        """What the outputs (samples, ...) on the first samples of a split are worth; the first metric is minimised."""

    @abstractmethod
    def decisions(self, outputs: Tensor) -> list[str]:
        """What the outputs (samples, ...) decide on each sample, for comparison between forms of one model."""

    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        """Metrics of a model in eval mode on all samples of a split."""
        device = next(model.parameters()).device
        with torch.inference_mode():
            outputs = [model(*(x.to(device) for x in inputs)).float().cpu() for inputs in self._chunks(split)]
        return self.metrics(torch.cat(outputs), split)

    def program(self, subnet: nn.Module) -> Program:
        """`forward` on one sample."""
        inputs = {name: x[:1].clone() for name, x in self.samples("dev").items()}
        return Program((Method("forward", "model", subnet.eval(), inputs, (self.output,)),))

    def score(self, program: Program, methods: Methods, split: str) -> Score:
        """Run a program on the samples one by one, as a device would."""
        forward = methods[program.methods[0].name]
        samples = [x.numpy() for x in self.samples(split).values()]
        rows = [forward(*(x[i : i + 1] for x in samples))[0] for i in range(len(samples[0]))]
        outputs = torch.cat([torch.from_numpy(row) for row in rows])
        return Score(self.metrics(outputs, split), self.decisions(outputs))

    def _chunks(self, split: str) -> Iterator[tuple[Tensor, ...]]:
        yield from zip(*(x.split(self.chunk) for x in self.samples(split).values()), strict=True)
