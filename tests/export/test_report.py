"""The report: numbers read off the page in a browser, off the terminal's table and off the picture."""

import csv
import json
import math
import re
import shutil
import tempfile
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from todm.errors import TodmError
from todm.export.report import picture, table, write_report

SIZES = {"net@0.1MB_wer3.9": 62_112, "net@0.3MB_wer2.4": 158_400, "net@0.7MB_wer1.6": 402_816}
SIZES["net@1.6MB_wer1.3"] = 911_232
ERRORS = dict(zip(SIZES, (3.87, 2.41, 1.62, 1.34), strict=True))
RUNTIMES = {"onnx": (1.10, 0.30, 9.1e6), "executorch": (1.04, 0.42, 4.2e6)}
DATA = {"source": "FSDD recordings (real digits, 6 speakers, official split by take)", "test_utterances": 600}


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def arch_of(params: int) -> dict[str, int]:
    width = 8 * round(math.sqrt(params) / 60)
    return {"depth": 2 + params // 250_000} | {f"ff{n}": width + 16 * (n % 2) for n in range(6)}


def bench_rows(metric: str = "wer") -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for subnet, params in SIZES.items():
        for runtime, (overhead, speed, memory) in RUNTIMES.items():
            for precision, bytes_each, rough in (("float", 4.0, 0.0), ("int8", 1.35, 0.11)):
                latency = speed * (params / 1e5) ** 0.7 * (1 if precision == "float" else 0.6)
                size = int(params * bytes_each * overhead + 21_000)
                row: dict[str, Any] = {
                    "subnet": subnet,
                    "device": "local",
                    "runtime": runtime,
                    "precision": precision,
                }
                row |= {"size_bytes": size, "params": params, "macs": params * 9}
                row |= {"latency_p50_ms": round(latency, 4), "latency_p90_ms": round(latency * 1.12, 4)}
                row |= {"latency_p99_ms": round(latency * 1.9, 4), "rtf": round(latency / 320, 6)}
                row |= {"load_ms": round(5 + size / 4e5, 2), "peak_rss_bytes": int(61e6 + memory + size)}
                row |= {"peak_memory_bytes": int(memory + 1.6 * size)}
                row |= {metric: round(ERRORS[subnet] + rough * (1.5 if params > 9e5 else 1), 2)}
                rows.append(row | {"threads": 1, "cpu": "Some CPU @ 2.20GHz"})
    return rows


def parity_rows() -> list[dict[str, Any]]:
    rows = []
    for rank, (subnet, params) in enumerate(SIZES.items()):
        zeros = {"max_abs_diff": 0, "max_rel_diff": 0, "words_changed": 0, "utterances_changed": 0}
        rows.append({"subnet": subnet, "form": "pytorch", **zeros, "wer": ERRORS[subnet], "size_bytes": params * 4})
        for row in bench_rows()[4 * rank : 4 * rank + 4]:
            rough = row["precision"] == "int8"
            diff = (0.031 if rough else 3.1e-6) * (1 + rank / 3 + (row["runtime"] == "onnx") / 7)
            found = {"subnet": subnet, "form": f"{row['runtime']} {row['precision']}", "max_abs_diff": diff}
            found |= {"max_rel_diff": diff / 9, "words_changed": 3 + rank if rough else 0}
            found |= {"utterances_changed": 2 + rank if rough else 0}
            rows.append(found | {"wer": row["wer"], "size_bytes": row["size_bytes"]})
    return rows


def log_lines() -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    for update in range(1, 1201, 5):
        loss = 18 * math.exp(-update / 170) + 0.35 + 0.08 * math.sin(update)
        line = {"update": update, "loss": loss * 1.1, "loss_largest": loss, "loss_smallest": loss * 1.45}
        divergence = 0.02 + 0.4 * math.exp(-update / 300) if update > 300 else 0.0
        lines.append(line | {"divergence": divergence, "lr": 0.02, "grad_norm": 2.0, "seconds": update * 0.2})
    for update in range(100, 1201, 100):
        wer = 96 * math.exp(-update / 160) + 1.5
        lines.append({"update": update, "dev": {"largest": {"wer": wer}, "smallest": {"wer": wer * 1.3 + 1.6}}})
    return lines


def make_run(folder: Path) -> Path:
    """A run folder with every part, and the numbers a real run has."""
    folder.mkdir(parents=True, exist_ok=True)
    machine = {
        "cpu": "Some CPU @ 2.20GHz",
        "cores": 2,
        "memory_bytes": 8.2e9,
        "os": "Linux",
        "python": "3.11",
    }
    run = {"name": "digits", "recipe": "digits", "created": "2026-03-01 10:00", "threads": 1, "seed": 0}
    run |= {"machine": machine, "versions": {"todm": "0.1.0", "torch": "2.14.1"}, "git_commit": "0123abc"}
    run |= {"data": DATA, "seconds": {"train": 252.4, "search": 61.0, "export": 88.2}}
    (folder / "run.json").write_text(json.dumps(run))
    # Ends as a killed run ends: in the middle of a line.
    log = "".join(json.dumps(line) + "\n" for line in log_lines()) + '{"update": 1300, "lo'
    (folder / "log.jsonl").write_text(log)
    candidates = []
    for n in range(80):
        params, off = int(55_000 * 17 ** (n / 79)), n * 37 % 11
        row = {"arch": json.dumps(arch_of(params)), "wer": 1.4 + 2.6 * (6e4 / params) ** 0.7 + off / 9}
        row |= {"params": params, "macs": params * 9, "size_bytes": params * 4 + 21_000}
        candidates.append(row | {"latency_p90_ms": 0.4 * (params / 1e5) ** 0.7, "front": int(off == 0)})
    write_csv(folder / "search/front.csv", candidates)
    quality = {"latency_p90_ms": {"mape": 4.3, "rank_correlation": 0.981}}
    (folder / "search/predictor.json").write_text(json.dumps(quality))
    for subnet, params in SIZES.items():
        bundle = folder / "subnets" / subnet / "bundle/onnx/streaming"
        bundle.mkdir(parents=True)
        (bundle / "tokens.txt").write_text("<blk> 0\n")
        (folder / "subnets" / subnet / "arch.json").write_text(json.dumps(arch_of(params)))
        scores = {"dev": {"wer": ERRORS[subnet] - 0.2}, "test": {"wer": ERRORS[subnet]}}
        metrics = {"name": subnet, "params": params, "macs": params * 9, **scores}
        (folder / "subnets" / subnet / "metrics.json").write_text(json.dumps(metrics))
    write_csv(folder / "parity.csv", parity_rows())
    write_csv(folder / "bench.csv", bench_rows())
    return folder


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


@pytest.fixture
def page(browser: Any, tmp_path: Path) -> Any:
    """The report of a whole run, open in the browser; nothing may complain or ask for anything else."""
    for kind in ("browser", "performance"):
        browser.get_log(kind)
    address = write_report(make_run(tmp_path / "my runs" / "digits")).as_uri()
    browser.get(address)
    yield browser
    assert browser.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [m["params"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    urls = {request["request"]["url"] for request in asked if request["documentURL"] == address}
    assert urls - {"data:,"} == {address}


def one(page: Any, selector: str) -> Any:
    found = page.find_elements("css selector", selector)
    assert len(found) == 1, f"{len(found)} of {selector}"
    return found[0]


def test_every_measured_number_is_in_the_table(page: Any) -> None:
    assert one(page, "#source").text == DATA["source"]
    cells = page.execute_script(
        "return [...document.querySelectorAll('#files tbody [data-value]')].map(c => ({...c.dataset}))"
    )
    found = {(c["subnet"], c["runtime"], c["precision"], c["key"]): c["value"] for c in cells}
    for row in bench_rows():
        for key in set(row) - {"subnet", "runtime", "precision", "device", "threads", "cpu"}:
            assert float(found[row["subnet"], row["runtime"], row["precision"], key]) == row[key]
    cell = one(
        page,
        "#files td[data-subnet='net@0.7MB_wer1.6'][data-runtime=onnx][data-precision=int8][data-key=wer]",
    )
    assert cell.text == "1.73"
    best = one(page, "[data-fact=wer]")
    assert (best.text, best.get_attribute("data-subnet")) == ("1.34 %", "net@1.6MB_wer1.3")
    smallest = one(page, "[data-fact=size_bytes]")
    assert float(smallest.get_attribute("data-value")) == min(row["size_bytes"] for row in bench_rows())


def test_headings_sort_the_table(page: Any) -> None:
    head = one(page, "#files th[data-key=latency_p90_ms]")
    cells = "[...document.querySelectorAll('#files td[data-key=latency_p90_ms]')]"
    read = f"return {cells}.map(cell => +cell.dataset.value)"
    expected = sorted(row["latency_p90_ms"] for row in bench_rows())
    assert page.execute_script(read) != expected
    one(page, "#files th[data-key=latency_p90_ms] button").click()
    assert page.execute_script(read) == expected
    assert head.get_attribute("aria-sort") == "ascending"
    one(page, "#files th[data-key=latency_p90_ms] button").click()
    assert page.execute_script(read) == expected[::-1]
    one(page, "#files th[data-key=runtime] button").click()
    assert head.get_attribute("aria-sort") == "none"
    names = [cell.text for cell in page.find_elements("css selector", "#files td[data-key=runtime]")]
    assert names == sorted(names)


def test_a_mark_stands_where_its_numbers_say_and_tells_them(page: Any) -> None:
    actions = pytest.importorskip("selenium.webdriver").ActionChains(page)
    read = """const view = document.querySelector(`#front [data-axis=${arguments[0]}]`);
        const at = e => (b => [b.x + b.width / 2, b.y + b.height / 2])(e.getBoundingClientRect());
        return [[...view.querySelectorAll("[data-tip]")].map(m => [+m.dataset.x, +m.dataset.y, ...at(m)]),
            [...view.querySelectorAll(".tick")].map(t => [+t.textContent, t.matches(".below"), ...at(t)])]"""
    units = {"size_bytes": 1e6, "latency_p90_ms": 1.0, "peak_memory_bytes": 1e6, "params": 1e6}
    for key, unit in units.items():
        one(page, f"label[for=front-{key}]").click()
        views = page.find_elements("css selector", "#front .axis-view")
        assert [v.get_attribute("data-axis") for v in views if v.is_displayed()] == [key]
        marks, ticks = page.execute_script(read, key)
        assert sorted(m[:2] for m in marks) == sorted([float(r[key]), r["wer"]] for r in bench_rows())
        across = [(number * unit, left) for number, below, left, _ in ticks if below]
        up = [(number, top) for number, below, _, top in ticks if not below]
        for x, y, left, top in marks:
            along = math.log(x / across[0][0]) / math.log(across[-1][0] / across[0][0])
            assert left == pytest.approx(across[0][1] + along * (across[-1][1] - across[0][1]), abs=1)
            along = (y - up[0][0]) / (up[-1][0] - up[0][0])
            assert top == pytest.approx(up[0][1] + along * (up[-1][1] - up[0][1]), abs=2)
    one(page, "label[for=front-size_bytes]").click()
    mark = one(page, "#front [data-axis=size_bytes] [data-subnet='net@0.7MB_wer1.6'][data-family='onnx int8']")
    actions.move_to_element(mark).perform()
    tip = one(page, "#tip")
    assert tip.is_displayed()
    for words in (
        "net@0.7MB_wer1.6",
        "onnx int8",
        "WER\n1.73 %",
        "file size\n619 kB",
        "peak memory\n10.1 MB",
    ):
        assert words in tip.text
    assert "latency p90\n0.535 ms" in tip.text
    assert "depth 3 · ff 88 104 88 104 88 104" in tip.text
    actions.move_to_element(one(page, "#name")).perform()
    assert not tip.is_displayed()


def test_parity_curves_search_and_commands(page: Any, tmp_path: Path) -> None:
    worst = page.find_elements("css selector", "#parity .worst[data-key=max_abs_diff][data-form='onnx int8']")
    assert [cell.get_attribute("data-subnet") for cell in worst] == ["net@1.6MB_wer1.3"]
    rows = [row for row in parity_rows() if row["form"] == "onnx int8"]
    assert float(worst[0].get_attribute("data-value")) == max(row["max_abs_diff"] for row in rows)
    assert page.find_elements("css selector", "#parity .worst[data-form=pytorch]") == []
    change = one(page, "#parity [data-subnet='net@0.1MB_wer3.9'][data-form='onnx int8'][data-key='wer (change)']")
    assert change.text == "+0.11"
    last = one(page, "#curves [data-curve='wer (dev)'][data-key=largest]")
    assert float(last.get_attribute("data-value")) == log_lines()[-1]["dev"]["largest"]["wer"]
    assert len(page.find_elements("css selector", "#curves .plot")) == 3
    assert len(page.find_elements("css selector", "#candidates [data-axis=size_bytes] [data-tip]")) == 80
    assert float(one(page, "#predictor [data-key=mape][data-value]").get_attribute("data-value")) == 4.3
    commands = [code.text for code in page.find_elements("css selector", ".next code")]
    run = f"'{tmp_path}/my runs/digits'"
    assert f"todm transcribe {run[:-1]}/subnets/net@1.6MB_wer1.3' file.wav" in commands
    assert f"todm search {run} --budget 'size<=0.68MB'" in commands
    one(page, ".next li:last-child button").click()
    assert page.execute_script("return getSelection().toString()") == f"todm report {run}"


def test_the_page_fits_a_phone_and_follows_the_colour_scheme(page: Any) -> None:
    colours = []
    for scheme in ("light", "dark"):
        feature = {"name": "prefers-color-scheme", "value": scheme}
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        colours.append(page.execute_script("return getComputedStyle(document.documentElement).backgroundColor"))
    assert colours == ["rgb(253, 252, 250)", "rgb(20, 23, 27)"]
    phone = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    try:
        assert page.execute_script("return document.documentElement.scrollWidth") == 390
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_hostile_names_stay_text_in_the_browser(browser: Any, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    bad = "<script>document.title='caught'</script>\"'&{{ 7*7 }}"
    rows = [row | {"subnet": bad} if n < 4 else row for n, row in enumerate(bench_rows())]
    write_csv(run / "bench.csv", [row | {"cpu": f"</script>{bad}"} for row in rows])
    browser.get(write_report(run).as_uri())
    assert browser.title == "digits · report"
    assert one(browser, "#files tbody tr:first-child th").text == bad
    one(browser, "#front [data-axis=size_bytes] [data-tip='bench/0']").send_keys("")
    assert bad in one(browser, "#tip").text
    assert browser.get_log("browser") == []


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
