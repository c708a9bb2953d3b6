"""The browser as a device: a bundle's web folder, served to headless Chromium and measured there."""

import functools
import http.server
import json
import os
import platform
import re
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from todm.errors import TodmError
from todm.export import runner
from todm.export.backend import Precision
from todm.export.bundle import Bundle
from todm.export.device import Device
from todm.export.onnxruntime_web import BINARY, PACKAGE, SCRIPT

INSTALL = "apt-get install chromium chromium-driver"
SWITCHES = (
    "headless=new", "disable-gpu", "disable-background-networking", "disable-component-update", "disable-sync",
    "disable-dev-shm-usage", "no-first-run",
)  # fmt: skip
TIMEOUT = 120
"""Seconds that a step may take, beside the measuring itself."""


class NoBrowser(TodmError):
    """A browser cannot be started here; the message says what to type."""


class _Files(http.server.SimpleHTTPRequestHandler):
    """Files of a folder, quietly, in a page that is isolated: Chromium's clock then has steps of 5 us, not 100 us."""

    def end_headers(self) -> None:
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """The address at which a folder is served on this machine."""
    handler = functools.partial(_Files, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@contextmanager
def chromium(*switches: str) -> Iterator[Any]:
    """A headless window of Chromium or Chrome, as Selenium drives it, with a profile of its own.

    Raises:
        NoBrowser: Chromium, its driver or Selenium is missing, or it does not start.
    """
    try:
        from selenium import webdriver
        from selenium.common.exceptions import WebDriverException
        from selenium.webdriver.chrome.service import Service
    except ImportError as error:
        raise NoBrowser("the browser is driven by Selenium; type: pip install 'todm[web]'") from error
    names = ("chromium", "chromium-browser", "google-chrome")
    program, driver = next(filter(None, map(shutil.which, names)), None), shutil.which("chromedriver")
    if not (program and driver):
        raise NoBrowser(f"no Chromium and chromedriver on this machine; type: {INSTALL}")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        root = ["no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
        for switch in (*SWITCHES, *root, *switches, f"user-data-dir={profile}"):
            options.add_argument(f"--{switch}")
        try:
            window = webdriver.Chrome(options=options, service=Service(driver))
        except WebDriverException as error:
            reason = (error.msg or "no reason given").splitlines()[0]
            raise NoBrowser(f"Chromium does not start ({reason}); type: {INSTALL}") from error
        try:
            yield window
        finally:
            window.quit()


def run_in_browser(
    bundle: Bundle, device: Device, runtime: str, precision: Precision, paced: int = 0, soak: int = 0
) -> dict[str, Any]:
    """What runner.py prints on other devices. Loading includes compiling the runtime, as it does on every visit.

    Args:
        paced: Chunks to time at the pace of a live signal.
        soak: Cycles over which the growth of memory is watched.

    Raises:
        TodmError: the runtime is not the browser's, the bundle has no such files, see `chromium`, or the page fails.
    """
    if runtime != "web":
        raise TodmError(f"device {device.name} is a browser, which runs web files, not those of {runtime}")
    folder = bundle.files(runtime, precision)[0].parent
    with serve(folder) as address, chromium() as window:

        def ask(verb: str, seconds: float = 0.0, **arguments: Any) -> Any:
            return _do(window, f"return engine.ask('{verb}', {json.dumps(arguments)})", TIMEOUT + seconds)

        window.get(f"{address}/model.json")  # a page without a script, whose place the measuring takes
        _do(window, 'window.engine = new (await import("/engine.js")).Engine()', TIMEOUT)
        version = ask("start")["version"]
        process = _renderer(window.service.process.pid)
        result: dict[str, Any] = {"rss_before_bytes": _memory(process, "VmRSS")}
        result["load_ms"] = ask("load", precision=precision)
        result["cycles_ms"] = ask("measure", cycles=device.cycles)
        result["peak_rss_bytes"] = _memory(process, "VmHWM")
        length = bundle.manifest["program"]["seconds"]
        result["paced_ms"] = ask("pace", paced * length, cycles=paced) if length and paced else []
        if soak:
            ask("measure", soak, cycles=soak // 10)
            before = _memory(process, "VmRSS")
            ask("measure", soak, cycles=soak)
            result["growth_bytes"] = _memory(process, "VmRSS") - before
        versions = {"chromium": window.capabilities["browserVersion"], PACKAGE: version}
    return result | {
        "binary_bytes": sum((folder / name).stat().st_size for name in (SCRIPT, f"{BINARY}.gz")),
        "operators": [],
        "cpu": runner.processor(),
        "machine": platform.machine(),
        "governor": runner.read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor") or "unknown",
        "temperature_c": runner.temperature(),
        "versions": versions,
    }


def _do(window: Any, script: str, seconds: float) -> Any:
    """What the body of an asynchronous function returns in the page."""
    from selenium.common.exceptions import WebDriverException

    window.set_script_timeout(seconds)
    wrapped = f"""const done = arguments[0];
        (async () => {{ {script} }})().then((value) => done([value, null]), (error) => done([null, String(error)]));"""
    try:
        value, failure = window.execute_async_script(wrapped)
    except WebDriverException as error:
        value, failure = None, (error.msg or "the page does not answer").splitlines()[0]
    if failure:
        raise TodmError(f"the web folder fails in the browser ({failure}); export it again with todm export --to web")
    return value


def _renderer(driver: int) -> int:
    """The process below the driver's that runs the page: of its renderers the one with the most memory."""
    parents = {}
    for status in Path("/proc").glob("[0-9]*/status"):
        if found := re.search(r"^PPid:\s*(\d+)", runner.read(str(status)), re.MULTILINE):
            parents[int(status.parent.name)] = int(found[1])

    def below(process: int) -> bool:
        return process == driver or (process in parents and below(parents[process]))

    commands = {process: runner.read(f"/proc/{process}/cmdline") for process in parents if below(process)}
    return max((process for process, text in commands.items() if "--type=renderer" in text), key=_resident, default=0)


def _resident(process: int) -> int:
    return _memory(process, "VmRSS")


def _memory(process: int, field: str) -> int:
    """Bytes; 0 where there is no /proc."""
    found = re.search(rf"^{field}:\s*(\d+) kB", runner.read(f"/proc/{process}/status"), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0
