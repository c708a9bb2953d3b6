"""The recipe annealed_sr by the verbs a user types, at its smallest setting, on made-up pictures."""

import csv
import json
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from todm.cli import main
from todm.errors import TodmError
from todm.export.bundle import load_bundle
from todm.recipes.annealed_sr import chart, grid
from todm.recipes.annealed_sr.tiles import in_tiles

ROWS = ["middle", "annealed", "none", "last", "third_block", "middle_033", "middle_010"]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """Eight pictures to train on, one to choose on, and those that the grid shows."""
    home = tmp_path_factory.mktemp("sr")
    for seed, name in enumerate([f"T91/t{i}" for i in range(9)] + ["Set5/img_003", "Set14/img_014"]):
        noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(120, 130, 3)), (2, 2, 0))
        path = home / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.rint(128 + 100 * noise / np.abs(noise).max()).astype(np.uint8)).save(path)
    return home


@pytest.fixture(scope="module")
def run(pictures, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("run") / "sr"
    assert main(["run", "annealed_sr", "--quick", "--data", str(pictures), "--out", str(out)]) == 0
    return out


def table(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_gives_a_family_that_both_runtimes_agree_on(run):
    bench, parity = table(run / "bench.csv"), table(run / "parity.csv")
    assert {row["runtime"] for row in bench} == {"onnx", "executorch"}
    assert len({row["params"] for row in bench}) == 2
    floats = [row for row in parity if row["form"].endswith("float")]
    assert len(floats) == 4
    assert all(float(row["max_abs_diff"]) < 1e-4 for row in floats)
    assert json.loads((run / "run.json").read_text())["metric_unit"] == "of 255"


def test_an_exported_net_takes_tiles_and_with_onnx_whole_pictures(run):
    bundle = load_bundle(next((run / "subnets").iterdir()) / "bundle")
    picture = np.random.default_rng(0).random((70, 90), np.float32)
    methods = {runtime: bundle.methods(runtime, "float")["upscale"] for runtime in ("onnx", "executorch")}
    tiled = {runtime: in_tiles(lambda tile, m=method: m(tile)[0], picture) for runtime, method in methods.items()}
    (whole,) = methods["onnx"](picture[None, None])
    assert whole.shape == (1, 1, 140, 180)
    assert np.allclose(tiled["onnx"], tiled["executorch"], atol=1e-4)
    assert np.allclose(whole[0, 0, 32:-32, 32:-32], tiled["onnx"][32:-32, 32:-32], atol=1e-4)


def test_a_comparison_its_chart_and_its_grid(pictures, tmp_path, capsys):
    out = tmp_path / "compared"
    arguments = ["compare", "annealed_sr", "--quick", "--seeds", "2", "--data", str(pictures), "--out", str(out)]
    assert main([*arguments, "--json"]) == 0
    lines = json.loads(capsys.readouterr().out)
    assert [line["row"] for line in lines] == ROWS
    assert all("psnr_difference" in line for line in lines if line["row"] != "middle")

    results = {(row["row"], row["seed"]): row for row in table(out / "results.csv")}
    found = chart.differences(out / "results.csv")
    assert list(found) == [row for row in ROWS if row != "none"]
    expected = [float(results["last", s]["psnr_blur"]) - float(results["none", s]["psnr_blur"]) for s in "01"]
    assert found["last"]["psnr_blur"] == pytest.approx(expected)
    drawing = chart.draw(found)
    assert drawing.startswith("<svg ") and drawing.count("<circle") == len(found) * (1 + len(chart.KINDS))

    picture = Image.open(BytesIO(grid.draw(out)))
    assert picture.width > (2 + len(ROWS)) * grid.SIDE
    assert picture.height > len(grid.CROPS) * len(grid.SHOWN) * grid.SIDE
    with pytest.raises(TodmError, match=r"holds no run and no comparison"):
        grid.draw(tmp_path)
    with pytest.raises(TodmError, match=r"results.csv: No such file"):
        chart.differences(tmp_path / "results.csv")
