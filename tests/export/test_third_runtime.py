"""A third runtime comes from a package of its own: one file and one entry point, and every verb knows it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BACKEND = '''
"""torch.export's own files as a runtime: one .pt2 a method, run by PyTorch."""

from importlib.metadata import version

import torch

from todm.files import atomic_write


class Pt2:
    name = "pt2"
    precisions = ("float",)
    apart = True

    def export(self, program, folder, precision, calibration=()):
        files = {}
        for variant, methods in program.ways().items():
            files[variant] = []
            for method in methods:
                path = folder / self.name / f"{method.name}.pt2"
                path.parent.mkdir(parents=True, exist_ok=True)
                torch.export.save(torch.export.export(method.module, tuple(x.clone() for x in method.inputs.values())), path)
                files[variant].append(path)
        return files

    def load(self, folder, precision, threads=1, methods=None):
        def bind(path):
            module = torch.export.load(path).module()

            def call(*inputs):
                with torch.inference_mode():
                    result = module(*map(torch.from_numpy, inputs))
                return tuple(x.numpy() for x in (result if isinstance(result, tuple) else (result,)))

            return call

        torch.set_num_threads(threads)
        return {path.stem: bind(path) for path in folder.glob("*.pt2") if methods is None or path.stem in methods}

    def trace(self, folder, precision, threads, program):
        return []  # PyTorch's operators all run on its own kernels: nothing to tell apart

    def versions(self):
        return {"torch": version("torch")}
'''
PROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "todm-pt2"
version = "0.1"

[project.entry-points."todm.backends"]
pt2 = "todm_pt2:Pt2"

[tool.setuptools]
py-modules = ["todm_pt2"]
"""
MAKE = """
import sys
from toy import streaming_program, transcribe
from todm.export import record, write_bundle
from todm.export.proof import attach
from todm.program import eager

program = streaming_program()
calls = record(eager(program), transcribe, 6)
bundle = write_bundle(
    sys.argv[1], program, name="toy", arch={}, params=1, macs=1, metrics={"wer": 1.0},
    data={"name": "noise", "license": "cc0-1.0"}, runtimes=["onnx", "pt2"], precisions=["float"], calibration=calls,
)
attach(bundle, program, calls)
assert transcribe(bundle.methods("pt2")) == transcribe(eager(program))
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package, installed there by pip."""
    source, site = tmp_path_factory.mktemp("todm_pt2"), tmp_path_factory.mktemp("site")
    (source / "todm_pt2.py").write_text(BACKEND)
    (source / "pyproject.toml").write_text(PROJECT)
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--target"]
    subprocess.run([*install, str(site), str(source)], check=True, stderr=subprocess.DEVNULL)
    return site


def test_a_package_adds_a_runtime_to_every_verb(site: Path, tmp_path: Path) -> None:
    paths = [str(site), str(Path(__file__).parent)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}

    def run(*command: str) -> str:
        return subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout

    bundle = str(tmp_path / "bundle")
    run(sys.executable, "-c", MAKE, bundle)
    todm = (sys.executable, "-m", "todm")
    verified = json.loads(run(*todm, "verify", bundle, "--json"))
    assert {row["runtime"] for row in verified["parity"]} == {"onnx", "pt2"}
    assert max(row["max_rel"] for row in verified["parity"]) < 1e-5
    assert [row["file"] for row in verified["delegation"] if row["runtime"] == "pt2"] == []
    row = json.loads(run(*todm, "bench", bundle, "--runtime", "pt2", "--paced", "2", "--soak", "20", "--json"))
    assert row["runtime"] == "pt2" and row["latency_p50_ms"] > 0 and row["matrix_accelerated"] is None
    assert "torch" in row["versions"]
