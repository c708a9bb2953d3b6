"""Run the commands of README.md and docs/deploy.md on a trained run, as they stand there.

    python tests/readme_commands.py runs/quick

`runs/digits` becomes the run, `NAME` and `SUBNET` its first subnet, `a.wav b.flac` two utterances of its test set.
"""

import json
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
SKIPPED = ("todm run", "todm train", "todm compare", "--microphone", "pi4", "arm64", "--paced 1000")
"""What trains, needs a microphone or a device, or takes minutes; other steps of CI train."""


def commands(path: Path) -> list[str]:
    """Commands in code spans of tables, in the order of the page."""
    found = re.findall(r"^\| `((?:todm|python) [^`]+)`", path.read_text(encoding="utf-8"), re.MULTILINE)
    return [command for command in found if not any(word in command for word in SKIPPED)]


def main(run: Path) -> int:
    """Run them all; returns how many failed."""
    subnet = sorted((run / "subnets").iterdir())[0]
    corpus = json.loads((run / "run.json").read_text())["data"]
    audio = [str(path) for path in sorted(Path(corpus["folder"]).glob("test/*.wav"))[:2]]
    names = {"runs/digits/subnets/NAME": subnet, "SUBNET": subnet, "runs/digits": run, "a.wav b.flac": " ".join(audio)}
    filled = []
    for command in commands(ROOT / "README.md") + commands(ROOT / "docs" / "deploy.md"):
        for name, value in names.items():
            command = command.replace(name, str(value))
        filled.append(command)
    failed = 0
    for command in dict.fromkeys(filled):
        program, *arguments = shlex.split(command)
        python, begin = [sys.executable, *(["-m", "todm"] if program == "todm" else [])], time.perf_counter()
        done = subprocess.run([*python, *arguments], capture_output=True, text=True, check=False)
        failed += done.returncode != 0
        print(f"{'FAILED' if done.returncode else 'ok':6} {time.perf_counter() - begin:6.1f} s  {command}", flush=True)
        if done.returncode:
            print(done.stderr[-2000:])
    print(f"{failed} failed")
    return failed


if __name__ == "__main__":
    sys.exit(bool(main(Path(sys.argv[1]))))
