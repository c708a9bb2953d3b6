"""A device over ssh, against a real sshd on this machine: measured there, brought back, nothing left behind."""

import csv
import getpass
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from todm.cli import main
from todm.errors import TodmError
from todm.export import Bundle, Device, find_device, measure


def sshd() -> str:
    """The daemon, installed where that is allowed."""
    places = f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin"
    if not shutil.which("sshd", path=places) and os.getuid() == 0 and shutil.which("apt-get"):
        subprocess.run(["apt-get", "update", "-qq"], check=False)
        install = ["apt-get", "install", "-qqy", "--no-install-recommends", "openssh-server", "openssh-client"]
        subprocess.run(
            install, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        )
    return shutil.which("sshd", path=places) or pytest.skip("needs openssh-server")


@pytest.fixture(scope="module")
def board_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Profile of this machine as a device that is reached with a throw-away key."""
    daemon, folder = sshd(), tmp_path_factory.mktemp("sshd")
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    shutil.copy(folder / "user.pub", folder / "authorized")
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {
        "Port": port, "ListenAddress": "127.0.0.1", "HostKey": folder / "host", "PidFile": folder / "pid",
        "AuthorizedKeysFile": folder / "authorized", "StrictModes": "no", "PasswordAuthentication": "no",
        "PermitRootLogin": "yes", "UsePAM": "no",
    }  # fmt: skip
    (folder / "config").write_text("".join(f"{key} {value}\n" for key, value in settings.items()))
    with subprocess.Popen([daemon, "-D", "-e", "-f", folder / "config"], stderr=subprocess.DEVNULL) as server:
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        (folder / "there").mkdir()
        python = f"TMPDIR={folder / 'there'} {sys.executable} -P"
        profile = {
            "name": "board", "reach": "ssh", "host": f"{getpass.getuser()}@127.0.0.1", "port": port, "cycles": 10,
            "key": str(folder / "user"), "python": python,
            "options": [f"UserKnownHostsFile={folder / 'known'}", "StrictHostKeyChecking=accept-new"],
        }  # fmt: skip
        (folder / "board.yaml").write_text(yaml.safe_dump(profile))
        yield folder / "board.yaml"
        server.terminate()


@pytest.fixture(scope="module")
def board(board_file: Path) -> Device:
    return find_device(str(board_file))


def remnants() -> set[str]:
    """Folders that a run over ssh makes, of all that are there now."""
    return {str(path.parent) for path in Path("/tmp").glob("tmp.*/runner.py")}


def test_rows_come_back_and_the_device_is_left_clean(board: Device, pristine: Bundle, tmp_path: Path) -> None:
    before = remnants()
    row = measure(pristine, board, "onnx", "int8", tmp_path / "samples.csv", paced=3, soak=20)
    assert (row["device"], row["runtime"], row["precision"]) == ("board", "onnx", "int8")
    assert row["size_bytes"] == pristine.size_bytes("onnx", "int8")
    assert 0 < row["latency_p50_ms"] <= row["latency_p99_ms"]
    assert (row["paced_chunks"], row["soak_cycles"]) == (3, 20)
    samples = (tmp_path / "samples.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in samples] == ["pace", *["full"] * 10, *["live"] * 3]
    assert remnants() == before


RECIPE = f"""
name: toy
task: {Path(__file__).parents[1] / "toy_task.py"}:ToyTask
training: {{updates: 4, checkpoint_every: 2}}
search: {{trials: 3, measured: 3, family: 2}}
export: {{runtimes: [onnx], precisions: [float]}}
"""


def test_search_and_advice_measure_with_any_profile(
    board_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "toy.yaml").write_text(RECIPE)
    run, device = str(tmp_path / "run"), ["--device", str(board_file)]
    assert main(["train", str(tmp_path / "toy.yaml"), "--out", run]) == 0
    assert main(["search", run, *device]) == 0
    samples = json.loads((tmp_path / "run" / "search" / "measurements-board.json").read_text())["rows"]
    assert len(samples) == 3 and {row["device"] for _, row in samples} == {"board"}
    with open(tmp_path / "run" / "bench.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 and {row["device"] for row in rows} == {"board"}
    capsys.readouterr()
    assert main(["advise", run, *device, "--budget", "size<=1MB, latency_p90<=1s", "--json"]) == 0
    advice = json.loads(capsys.readouterr().out)
    assert advice["device"] == "board" and advice["costs"]["latency_p90_ms"]["value"] > 0
    assert main(["advise", run, "--budget", "size<=1MB"]) == 2
    assert "nothing was measured on local" in capsys.readouterr().err


def test_what_fails_there_is_one_line_here(board: Device, pristine: Bundle) -> None:
    before = remnants()
    bare = Device(**{**vars(board), "python": f"{sys.executable} -S"})
    with pytest.raises(
        TodmError, match=r"onnx float on board failed: ModuleNotFoundError: No module named 'numpy'"
    ) as error:
        measure(pristine, bare)
    assert "\n" not in str(error.value)
    with pytest.raises(TodmError, match=r"on board failed: .*python9.*not found"):
        measure(pristine, Device(**{**vars(board), "python": "python9"}))
    assert remnants() == before


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"port": 1}, "Connection refused"),
        ({"key": "/no/key", "options": ["IdentityAgent=none", "IdentitiesOnly=yes"]}, "Permission denied"),
    ],
)
def test_an_unreachable_device(
    board: Device, pristine: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict, reason: str
) -> None:
    profile = {key: value for key, value in vars(board).items() if value and not key.startswith("__")} | change
    profile["options"] = [
        *profile["options"],
        f"UserKnownHostsFile={tmp_path / 'known'}",
        "StrictHostKeyChecking=accept-new",
    ]
    (tmp_path / "far.yaml").write_text(yaml.safe_dump(profile))
    assert main(["bench", str(pristine.folder), "--device", str(tmp_path / "far.yaml"), "--json"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert "board cannot be reached" in err and reason in err


def test_a_profile_says_how_to_get_there(tmp_path: Path) -> None:
    (tmp_path / "pi.yaml").write_text("name: pi\nreach: ssh\n")
    with pytest.raises(TodmError, match=r"give `host: user@name` with `reach: ssh`"):
        find_device(str(tmp_path / "pi.yaml"))
    (tmp_path / "pi.yaml").write_text("name: pi\npython: /no/such/python -P\n")
    assert find_device(str(tmp_path / "pi.yaml")).python == "/no/such/python -P"


def test_a_python_that_is_not_there(pristine: Bundle) -> None:
    with pytest.raises(TodmError, match="device here: cannot run /no/such/python: No such file or directory"):
        measure(pristine, Device(name="here", python="/no/such/python"))
