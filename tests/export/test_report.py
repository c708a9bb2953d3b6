"""The report: numbers read off the page, off the terminal's table and off the picture."""

import json
import re
import shutil
import tempfile
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_run import arch_of, bench_rows, make_run, write_csv

from todm.errors import TodmError
from todm.export.report import picture, table, write_report


class Tags(HTMLParser):
    """Every start tag of a page with its attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def cells(self, key: str) -> list[str]:
        return [
            a["data-value"] or ""
            for t, a in self.tags
            if t in ("td", "th") and a.get("data-key") == key and "data-value" in a
        ]


@settings(max_examples=20, deadline=None)
@given(st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), min_size=1, max_size=80))
def test_any_text_from_a_file_adds_no_tag_and_breaks_no_table(text: str) -> None:
    plain, text = "plain", f"<b onload=x>{text}"
    tags = []
    for name in (plain, text):
        with tempfile.TemporaryDirectory() as folder:
            run = Path(folder)
            (run / "run.json").write_text(json.dumps({"name": name, "data": {"source": name}, "versions": {"v": name}}))
            rows = [row | {"subnet": name, "cpu": name} for row in bench_rows()[:4]]
            write_csv(run / "bench.csv", rows)
            html = Tags(write_report(run).read_text(encoding="utf-8"))
            tags.append([tag for tag, _ in html.tags])
            assert {a.get("data-subnet") for t, a in html.tags if t == "td"} == {name}
            assert (
                json.loads(next(word for word in html.words if word.startswith('{"bench"')))["bench"][0]["subnet"]
                == name
            )
            ElementTree.fromstring(picture(run))
            assert max(map(len, table(run).splitlines())) <= 110
            assert len(table(run).split("\n")) == 6
    assert tags[0] == tags[1]


def test_missing_parts_say_what_to_type(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"name": "early", "recipe": "digits"}')
    html = Tags(write_report(tmp_path).read_text())
    text = "".join(html.words)
    assert text.count(f"todm search {tmp_path}") == 5
    assert f"todm train digits --out {tmp_path} --resume auto" in text
    assert "todm transcribe" not in text
    assert not [tag for tag, attributes in html.tags if attributes.get("class") == "plot"]
    for ask in (table, picture):
        with pytest.raises(TodmError, match=f"todm search {re.escape(str(tmp_path))}"):
            ask(tmp_path)


@pytest.mark.parametrize("name", ["bench.csv", "parity.csv", "log.jsonl", "search/front.csv", "subnets", "search"])
def test_each_part_may_be_missing(tmp_path: Path, name: str) -> None:
    run = make_run(tmp_path)
    shutil.rmtree(run / name) if (run / name).is_dir() else (run / name).unlink()
    html = Tags(write_report(run).read_text())
    assert [a for _, a in html.tags if a.get("class") == "missing"]
    if name != "bench.csv":
        assert [float(value) for value in html.cells("wer")][:2] == [3.87, 3.98]
        assert "WER" in table(run)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("run.json", '{"name": ', "run.json is not valid JSON"),
        ("bench.csv", "a,b\n1,2\n", "bench.csv lacks a column of precision, runtime, subnet"),
        ("parity.csv", "\0\1\n\xff", "parity.csv lacks a column"),
        ("subnets/net@0.1MB_wer3.9/metrics.json", "", "metrics.json is not valid JSON"),
    ],
)
def test_a_damaged_file_is_one_clear_line(tmp_path: Path, name: str, content: str, message: str) -> None:
    run = make_run(tmp_path)
    (run / name).write_text(content, encoding="latin-1")
    with pytest.raises(TodmError, match=re.escape(message)) as error:
        write_report(run)
    assert "\n" not in str(error.value)
    assert not (run / "report.html").exists()
    with pytest.raises(TodmError, match="no run folder"):
        write_report(run / "search")


def test_numbers_that_are_none(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    rows = bench_rows()
    rows[0] |= {"wer": 0.0, "latency_p90_ms": "nan", "rtf": "", "peak_memory_bytes": "inf"}
    write_csv(run / "bench.csv", rows)
    with open(run / "log.jsonl", "w") as file:
        file.write('{"update": 1, "loss": NaN}\n{"update": 2, "loss": 3.5, "divergence": 0}\n')
    html = Tags(write_report(run).read_text())
    assert html.cells("latency_p90_ms")[2] == ""
    assert [a["data-value"] for _, a in html.tags if a.get("data-fact") == "wer"] == ["0.0"]
    assert [a["data-value"] for _, a in html.tags if "data-curve" in a] == ["3.5", "0.0"]


def test_the_terminal_table(tmp_path: Path) -> None:
    lines = table(make_run(tmp_path)).splitlines()
    assert {len(line) for line in lines} == {len(lines[0])}
    assert len(lines[0]) <= 110
    assert re.split(" {2,}", lines[0]) == [
        *("subnet", "file", "size MB", "WER %", "params k", "p90 ms", "rtf", "peak memory MB")
    ]
    first = "net@0.1MB_wer3.9 executorch float 0.28 3.87 62 0.34 0.00094 4.6"
    assert lines[2].split() == first.split()
    assert lines[3].split() == ["executorch", "int8", "0.11", "3.98", "62", "0.20", "0.00056", "4.4"]
    assert len(lines) == 2 + 16


def test_the_picture(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    svg = ElementTree.fromstring(picture(run))
    plot = svg.find("{*}svg")
    assert plot is not None
    places = [(float(m.attrib["x"][:-1]), float(m.attrib["y"][:-1])) for m in plot.findall("{*}use")]
    assert len(places) == 16
    assert all(0 < x < 100 and 0 <= y < 100 for x, y in places)
    errors = {round(100 - y, 2) for _, y in places}
    # The axis of errors runs from 0 to 4 here.
    assert errors == {round(row["wer"] * 25, 2) for row in bench_rows()}
    words = " ".join(text for text in svg.itertext())
    assert all(family in words for family in ("onnx float", "onnx int8", "executorch float", "executorch int8"))
    assert not svg.findall(".//{*}script")
    assert picture(run) == picture(run)


def test_it_reads_what_the_search_and_the_trainer_write(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    from todm.search.front import Candidate, write_front

    run = make_run(tmp_path)
    costs = [{"params": 6e4 * n, "size_bytes": 3e5 * n} for n in (1, 2, 3)]
    found = [Candidate(arch_of(6000), error, cost) for error, cost in zip((4.0, 3.0, 2.5), costs, strict=True)]
    write_front(run / "search/front.csv", found)
    (run / "search/predictor.json").write_text('{"load_ms": {"error": 0.05, "rank_correlation": 1}}')
    line = {"update": 1, "loss_0": 2.5, "loss_1": 3.5, "loss_2": 3.0, "dev": {"largest": {"wer": 9.0}}}
    (run / "log.jsonl").write_text(json.dumps(line) + "\n")
    html = Tags(write_report(run).read_text())
    marks = [a for _, a in html.tags if str(a.get("data-tip")).startswith("search")]
    sizes = [float(a["data-x"] or 0) for a in marks if a["data-family"] == "on the front"]
    assert sizes == [cost[key] for key in ("size_bytes", "params") for cost in costs]
    assert html.cells("mape") == ["5.0"]
    last = {(a["data-curve"], a["data-key"], a["data-value"]) for _, a in html.tags if "data-curve" in a}
    assert last == {("loss", "largest", "2.5"), ("loss", "smallest", "3.5"), ("wer (dev)", "largest", "9.0")}


def test_several_devices_are_told_apart(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    rows = [row | {"device": device} for device in ("local", "rpi4") for row in bench_rows()]
    write_csv(run / "bench.csv", rows)
    html = Tags(write_report(run).read_text())
    marks = [a for _, a in html.tags if str(a.get("data-tip")).startswith("bench")]
    looks = {(a["data-family"], a["class"], a["href"]) for a in marks}
    assert len(looks) == len({look[1:] for look in looks}) == 8
    assert "onnx int8 · rpi4" in table(run)


def test_another_task_has_its_own_metric(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"name": "images", "metric_label": "top-1 error"}))
    rows = [row | {"subnet": "small"} for row in bench_rows("top1_error")[:4]]
    write_csv(tmp_path / "bench.csv", [{k: v for k, v in row.items() if k != "rtf"} for row in rows])
    html = Tags(write_report(tmp_path).read_text())
    assert [float(v) for v in html.cells("top1_error")] == [3.87, 3.98, 3.87, 3.98]
    text = "".join(html.words).lower()
    assert "lowest top-1 error" in text
    assert not re.search(r"\bwer\b|transcribe|utterance|real-time", text)
    assert "top-1 error %" in table(tmp_path)
    assert "rtf" not in table(tmp_path)


def test_a_metric_keeps_two_decimals_in_any_unit(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"name": "images", "metric_unit": "of 255"}))
    rows = [row | {"subnet": "small", "rmse": 11.5 + row["rmse"]} for row in bench_rows("rmse")[:4]]
    write_csv(tmp_path / "bench.csv", rows)
    lines = table(tmp_path).splitlines()
    assert "RMSE of 255" in lines[0]
    assert "15.37" in lines[2] and "15.48" in lines[3]
