"""Getting to a device: run the benchmark there with the files it needs, bring its answer back, leave nothing behind."""

import io
import json
import os
import shlex
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from todm.errors import TodmError
from todm.export import runner
from todm.export.backend import Precision
from todm.export.bundle import MANIFEST, Bundle
from todm.export.device import Device

REMOTE = """
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
trap 'exit 1' HUP INT TERM
cd "$folder" && tar -xf - && COMMAND
"""
"""What runs over ssh, in one session: unpack, measure, and remove the folder however that ends."""


def run_there(bundle: Bundle, device: Device, runtime: str, precision: Precision, options: Sequence[str]) -> Any:
    """The runner's result on a device. `options` are further arguments of the runner.

    Raises:
        TodmError: the device cannot be reached, or the runner failed there; says why in a line.
    """
    settings = ["--runtime", runtime, "--precision", precision, "--threads", str(device.threads), *options]
    threads = {"OMP_NUM_THREADS": str(device.threads)}
    if device.reach == "ssh":
        python = device.python or "python3"
        environment = " ".join(f"{name}={value}" for name, value in threads.items())
        command = f"{environment} {python} runner.py bundle {shlex.join(settings)}"
        there, sent = _ssh(device, REMOTE.replace("COMMAND", command)), _packed(bundle, runtime, precision)
        done = subprocess.run(there, input=sent, capture_output=True)
    else:
        # -P: beside runner.py lie modules named like the runtimes it imports.
        python_here = shlex.split(device.python) or [sys.executable, "-P"]
        here = [*python_here, runner.__file__, str(bundle.folder), *settings]
        try:
            done = subprocess.run(here, env={**os.environ, **threads}, capture_output=True)
        except OSError as error:
            raise TodmError(f"device {device.name}: cannot run {here[0]}: {error.strerror}") from error
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    if device.reach == "ssh" and done.returncode == 255:
        reason = lines[-1] if lines else "ssh said nothing"
        raise TodmError(f"device {device.name} cannot be reached: {reason}; try: ssh {device.host}")
    if done.returncode:
        reason = lines[-1] if lines else f"exit code {done.returncode}"
        raise TodmError(f"benchmark of {bundle.folder} with {runtime} {precision} on {device.name} failed: {reason}")
    return json.loads(done.stdout.decode().splitlines()[-1])


def _ssh(device: Device, script: str) -> list[str]:
    """A command that never asks anything and gives up on a silent host."""
    options = ["BatchMode=yes", "ConnectTimeout=10", "ServerAliveInterval=15", *device.options]
    command = ["ssh", *(word for option in options for word in ("-o", option))]
    command += ["-p", str(device.port)] if device.port else []
    command += ["-i", os.path.expanduser(device.key)] if device.key else []
    return [*command, "--", device.host, f"exec sh -c {shlex.quote(script)}"]


def _packed(bundle: Bundle, runtime: str, precision: Precision) -> bytes:
    """A tar of the runner and of those files of the bundle that this runtime and precision need."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.add(runner.__file__, "runner.py")
        extra = [bundle.folder / name for name in (MANIFEST, runner.PROOF)]
        for path in [*bundle.files(runtime, precision), *filter(Path.exists, extra)]:
            archive.add(path, Path("bundle") / path.relative_to(bundle.folder))
    return buffer.getvalue()
