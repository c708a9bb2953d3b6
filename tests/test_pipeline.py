"""The whole path through the command line on a small task: train, search, export, measure, report, ask for a budget."""

import csv
import json
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from todm import activate
from todm.cli import main
from todm.errors import TodmError
from todm.family import Family
from todm.int8 import SimulatedInt8
from todm.run import Run
from todm.search.budget import Budget
from todm.seeds import as_text, summarise
from todm.trained import Trained, read_arch

RECIPE = f"""
name: toy
task: {Path(__file__).parent / "toy_task.py"}:ToyTask
training: {{updates: 120, warmup: 10, growth: 0.2, divergence: adaptive, distillation_start: 0.5,
  evaluate_every: 60, checkpoint_every: 60}}
search: {{trials: 10, measured: 4, family: 3}}
export: {{runtimes: [onnx]}}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pipeline")
    (folder / "recipe.yaml").write_text(RECIPE)
    assert main(["run", str(folder / "recipe.yaml"), "--out", str(folder / "run")]) == 0
    return folder / "run"


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_the_family_spans_the_space_and_every_file_is_measured(run):
    bench = rows(run / "bench.csv")
    trained = Trained(Run.open(run))
    sizes = sorted({int(row["params"]) for row in bench})
    ends = [trained.exact(arch)["params"] for arch in (trained.space.smallest(), trained.space.largest())]
    assert len(sizes) == 3
    assert [sizes[0], sizes[-1]] == ends
    assert {(row["runtime"], row["precision"]) for row in bench} == {("onnx", "float"), ("onnx", "int8")}
    assert all(float(row["latency_p50_ms"]) <= float(row["latency_p90_ms"]) for row in bench)


def test_float_files_answer_as_pytorch_does(run):
    parity = rows(run / "parity.csv")
    exact = [row for row in parity if row["form"] in ("pytorch", "onnx float")]
    assert len(exact) == 6
    assert all(row["outputs_changed"] == "0" and float(row["max_abs_diff"]) < 1e-4 for row in exact)


def test_an_extracted_subnet_is_the_supernets(run):
    trained = Trained(Run.open(run))
    folder = next((run / "subnets").iterdir())
    arch, subnet = trained.load(folder)
    weights = load_file(folder / "subnet.safetensors")
    stored = json.loads((folder / "metrics.json").read_text())
    assert sum(tensor.numel() for tensor in weights.values()) == stored["params"]
    x = torch.randn(5, 8)
    assert torch.allclose(subnet(x), trained.built(arch)[1](x), atol=1e-6)


def test_a_budget_gives_a_bundle_measured_inside_it(run, capsys):
    assert main(["search", str(run), "--budget", "params<=800, latency_p90<=50ms", "--trials", "6", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["params"] <= 800
    assert found["latency_p90_ms"] <= 50
    assert (Path(found["bundle"]) / "bundle.json").is_file()
    assert main(["bench", found["bundle"], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["size_bytes"] == found["size_bytes"]


def test_the_error_bears_the_tasks_name_in_tables_and_budgets(run, capsys):
    front = rows(run / "search" / "front.csv")
    assert next(iter(front[0])) == "error"
    limit = sorted(float(row["error"]) for row in front)[1]
    assert main(["search", str(run), "--budget", f"error<={limit}", "--trials", "6", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    stored = json.loads((Path(found["bundle"]).parent / "metrics.json").read_text())
    assert stored["dev"]["error"] <= limit
    assert main(["advise", str(run), "--budget", "error<=100", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["error"]["value"] <= 100
    assert main(["search", str(run), "--budget", "error<=0.0001", "--trials", "6"]) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert 'no subnet within "error<=0.0001" was found; the least error is' in message
    assert main(["search", str(run), "--budget", "wer<=10"]) == 2
    assert "unknown 'wer'" in capsys.readouterr().err


def test_an_infeasible_budget_is_refused_at_once(run, capsys):
    start = time.perf_counter()
    assert main(["search", str(run), "--budget", "params<=10"]) == 2
    assert time.perf_counter() - start < 2
    message = capsys.readouterr().err.strip()
    assert "\n" not in message
    trained = Trained(Run.open(run))
    smallest = trained.exact(trained.space.smallest())["params"]
    assert f'--budget "params<={smallest:.0f}"' in message


def test_running_again_goes_on_and_other_settings_are_refused(run, capsys):
    recipe = str(run.parent / "recipe.yaml")
    assert main(["train", recipe, "--out", str(run)]) == 2
    assert "--resume auto" in capsys.readouterr().err
    assert main(["train", recipe, "--out", str(run), "--resume", "auto", "--training.updates", "130"]) == 2
    assert "other settings" in capsys.readouterr().err


def test_an_architecture_is_given_as_a_name_json_or_file(run, tmp_path):
    space = Trained(Run.open(run)).space
    (tmp_path / "arch.json").write_text(json.dumps(space.largest()))
    assert read_arch("largest", space) == read_arch(str(tmp_path / "arch.json"), space) == space.largest()
    assert read_arch(json.dumps(space.smallest()), space) == space.smallest()


def test_what_varies_between_seeds(tmp_path):
    for seed, (small, large) in enumerate([(4.0, 2.0), (6.0, 3.0)]):
        (tmp_path / str(seed)).mkdir()
        table = f"params,runtime,precision,wer\n10,onnx,float,{small}\n{20 + seed},onnx,float,{large}\n"
        (tmp_path / str(seed) / "bench.csv").write_text(table)
    summary = summarise([tmp_path / "0", tmp_path / "1"], "wer")
    assert [(row["wer_mean"], row["wer_worst"], row["seeds"]) for row in summary] == [(5.0, 6.0, 2), (2.5, 3.0, 2)]
    assert summary[0]["wer_sd"] == pytest.approx(2**0.5)
    assert "5.00 ± 1.41 (6.00)" in as_text(summary, "wer")


def test_a_worker_adds_to_a_search_that_has_begun(run, capsys):
    assert main(["search", str(run), "--worker", "--trials", "14", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["evaluated"] >= 14
    with Run.open(run).locked():  # as it is while another process searches
        assert main(["search", str(run), "--worker", "--trials", "14", "--budget", "params<=800"]) == 0
    capsys.readouterr()
    (run / "search" / "measurements-local.json").rename(run / "kept.json")
    assert main(["search", str(run), "--worker"]) == 2
    assert "no search of" in capsys.readouterr().err
    (run / "kept.json").rename(run / "search" / "measurements-local.json")


def test_a_broken_parity_ends_the_export_and_leaves_the_bundle_that_was_there(run, capsys):
    subnet = next(folder for folder in (run / "subnets").iterdir() if (folder / "bundle").is_dir())
    before = (subnet / "bundle" / "bundle.json").read_bytes()
    assert main(["export", str(subnet), "--to", "onnx", "--max-difference", "1e-12"]) == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert "broken parity" in message
    assert "export.max_difference" in message
    assert (subnet / "bundle" / "bundle.json").read_bytes() == before
    assert not list(subnet.glob(".bundle*"))
    assert main(["export", str(subnet), "--chunk-ms", "160"]) == 2
    assert "unknown key 'chunk_ms'" in capsys.readouterr().err


def test_the_chain_begins_with_the_supernet(run):
    for subnet in {row["subnet"] for row in rows(run / "parity.csv")}:
        chain = [row for row in rows(run / "parity.csv") if row["subnet"] == subnet]
        assert {row["form"] for row in chain} == {"supernet", "pytorch", "onnx float", "onnx int8"}
        (supernet,) = (row for row in chain if row["form"] == "supernet")
        assert float(supernet["max_abs_diff"]) < 1e-5
        assert supernet["outputs_changed"] == "0"


def test_search_minimises_the_error_in_int8_where_the_recipe_says_so(run):
    opened = Run.open(run)
    plain, narrow = Family(opened), Family(opened.adjusted({"search": {"precision": "int8"}}))
    arch = plain.space.largest()
    activate(plain.supernet, arch)
    with SimulatedInt8():
        expected = next(iter(plain.task.evaluate(plain.supernet, "dev").values()))
    assert narrow.error(arch) == expected
    assert narrow._searched != plain._searched


def test_a_budget_limits_the_error_that_is_searched_for(run):
    opened = Run.open(run).adjusted({"search": {"precision": "int8"}})
    assert (Run.open(run).searched, opened.searched) == ("error", "error_int8")
    with pytest.raises(TodmError, match='no subnet within "error_int8<=0.001" was found; the least error_int8 is'):
        Family(opened).best(Budget.parse("error_int8<=0.001", opened.searched), 4)
    assert next(iter(rows(run / "search" / "front.csv")[0])) == "error_int8"


def test_a_run_is_not_judged_on_other_data_than_it_was_trained_on(run):
    opened = Run.open(run)
    opened.note(data=opened.info["data"] | {"sha256": "of other recordings"})
    with pytest.raises(TodmError, match="was trained on: random numbers; now there are: random numbers; set TODM_DATA"):
        Trained(opened)
    opened.note(data={key: value for key, value in opened.info["data"].items() if key != "sha256"})
    Trained(Run.open(run))
