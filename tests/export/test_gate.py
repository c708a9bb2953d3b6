"""The gate: what passes, and the one line for what does not."""

import pytest

from todm.errors import TodmError
from todm.export.gate import Gate, too_costly


def row(form: str, difference: float = 1e-6, changed: int = 0) -> dict:
    return {"form": form, "max_rel_diff": difference, "outputs_changed": changed}


def test_float_forms_may_differ_by_rounding_and_int8_is_judged_elsewhere() -> None:
    Gate().check(
        [row("pytorch"), row("onnx float", 9e-4, 3), row("onnx int8", 0.3, 90), row("onnx int4 offline", 0.5, 90)], 600
    )
    Gate().check([row("onnx float", changed=1)], 20)
    Gate(None, None).check([row("onnx float", 2.0, 600)], 600)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (
            row("executorch float offline", 2e-3),
            "executorch float offline differs from PyTorch by 0.002 of the largest",
        ),
        (row("onnx float", float("nan")), "broken parity: onnx float differs from PyTorch by nan"),
        (row("supernet", 1e-6, 4), "supernet decides 4 of 600 samples differently than PyTorch, 0.5 % are allowed"),
    ],
)
def test_another_model_is_one_line(bad: dict, message: str) -> None:
    with pytest.raises(TodmError, match=message) as error:
        Gate().check([row("pytorch"), bad], 600)
    assert "\n" not in str(error.value)


def test_an_int8_file_that_loses_too_much_says_what_each_layer_costs() -> None:
    error = too_costly("onnx", 1.25, 0.2, 4, {"encode.up": 0.125, "encode.down": 0.03})
    assert "onnx int8 costs 1.25 points of wer" in str(error)
    assert "--max-wer-loss allows 0.2, even with the 4 costliest layers in float" in str(error)
    assert "encode.up 0.12, encode.down 0.03" in str(error)
