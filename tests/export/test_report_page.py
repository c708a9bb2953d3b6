"""The report in a browser: what it shows, how it answers, that it asks for nothing."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from sample_run import DATA, bench_rows, log_lines, make_run, parity_rows, write_csv

from todm.export.report import write_report


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
