"""One of the processes of tests/test_survival.py: a whole run on a file system that grows whenever it is full."""

import contextlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

TODM = [sys.executable, "-m", "todm"]


def main(recipe: str, disk: Path, kept: Path) -> None:
    """Start the run again with more room until it succeeds, then export without room; print what each start said.

    The run is copied to `kept`.
    """
    told: dict[str, list] = {"errors": [], "half_written": []}

    def start(*command: str) -> bool:
        done = subprocess.run([*TODM, *command], capture_output=True, text=True, check=False)
        if done.returncode:
            told["errors"].append(done.stderr)
            told["half_written"] += [str(path) for path in disk.rglob("*.part")]
        return done.returncode == 0

    for kilobytes in (300, 480, 40_000):
        subprocess.run(["mount", "-o", f"remount,size={kilobytes}k", str(disk)], check=True)
        if start("run", recipe, "--out", str(disk / "run")):
            break
    with contextlib.suppress(OSError), open(disk / "filler", "wb", buffering=0) as filler:
        while True:
            filler.write(bytes(4096))
    start("export", str(next((disk / "run" / "subnets").iterdir())), "--to", "onnx")
    shutil.copytree(disk / "run", kept)
    print(json.dumps(told))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
