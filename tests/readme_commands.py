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
    rows = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("| `todm ")]
    found = [re.match(r"\| `([^`]+)`", row) for row in rows]
    return [match[1] for match in found if match and not any(word in match[1] for word in SKIPPED)]


def main(run: Path) -> int:
    """Run them all; returns how many failed."""
    subnet = sorted((run / "subnets").iterdir())[0]
    corpus = json.loads((run / "run.json").read_text())["data"]
    audio = sorted(Path(corpus["folder"]).glob("test/*.wav"))[:2]
    failed = 0
    for command in dict.fromkeys(commands(ROOT / "README.md") + commands(ROOT / "docs" / "deploy.md")):
        filled = command.replace("runs/digits/subnets/NAME", str(subnet)).replace("SUBNET", str(subnet))
        filled = filled.replace("runs/digits", str(run)).replace("a.wav b.flac", " ".join(map(str, audio)))
        words, begin = shlex.split(filled), time.perf_counter()
        done = subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True, check=False)
        failed += done.returncode != 0
        print(
            f"{'ok    ' if done.returncode == 0 else 'FAILED'} {time.perf_counter() - begin:6.1f} s  {command}",
            flush=True,
        )
        if done.returncode:
            print(done.stderr[-2000:])
    print(f"{failed} failed")
    return failed


if __name__ == "__main__":
    sys.exit(bool(main(Path(sys.argv[1]))))
