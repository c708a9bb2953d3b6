"""Kill a whole run at random moments, again and again, and see whether it ends as an undisturbed one does.

    python tests/torture.py --kills 100

Training, search and export of the toy task, SIGKILL after a random time, the same command again. In the end the
weights must be those of an undisturbed run bit for bit, and every bundle whole.
"""

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from todm.checkpoint import list_checkpoints, newest_checkpoint
from todm.export.bundle import load_bundle

RECIPE = f"""
name: toy
task: {Path(__file__).parent / "toy_task.py"}:ToyTask
training: {{updates: 600, growth: 0.2, distillation_start: 0.4, evaluate_every: 200, checkpoint_every: 10}}
search: {{trials: 10, measured: 4, family: 2}}
export: {{runtimes: [onnx]}}
"""


def command(recipe: Path, out: Path) -> list[str]:
    return [sys.executable, "-m", "todm", "run", str(recipe), "--out", str(out)]


def stage(out: Path) -> str:
    """How far a run has come."""
    files = list_checkpoints(out / "checkpoints")
    if not files or files[-1].stem != "update-0000600":
        return "training" if files else "start"
    return "export" if (out / "subnets").exists() else "search"


def torture(folder: Path, kills: int, seed: int) -> tuple[list[str], Counter[str]]:
    """Kill a run that many times, then let it end; what was wrong with each start, and how many kills hit which stage."""
    recipe, rng, wrong, hit = folder / "recipe.yaml", random.Random(seed), [], Counter()
    recipe.write_text(RECIPE)
    begin = time.monotonic()
    undisturbed = subprocess.run(command(recipe, folder / "whole"), capture_output=True, text=True, check=False)
    if undisturbed.returncode:
        return [f"the undisturbed run ended with {undisturbed.returncode}: {undisturbed.stderr[-500:]}"], hit
    longest = time.monotonic() - begin  # kills fall on every part of a run, however slow the machine is now
    killed = out = folder / "killed-0"
    starts = 0
    while hit.total() < kills:
        starts += 1
        process = subprocess.Popen(command(recipe, out), stderr=subprocess.PIPE, text=True)
        try:
            _, err = process.communicate(timeout=rng.uniform(0, longest))
            if process.returncode:
                return [*wrong, f"start {starts} ended by itself with {process.returncode}: {err[-500:]}"], hit
            # It ended before its time: begin another.
            wrong += differences(folder / "whole", out)
            killed = out = folder / f"killed-{starts}"
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            hit[stage(out)] += 1
    last = subprocess.run(command(recipe, out), capture_output=True, text=True, check=False)
    if last.returncode:
        return [*wrong, f"the last start ended with {last.returncode}: {last.stderr[-500:]}"], hit
    return wrong + differences(folder / "whole", killed), hit


def differences(whole: Path, killed: Path) -> list[str]:
    """What of a killed and resumed run is not as in an undisturbed one."""
    ours, theirs = (newest_checkpoint(folder / "checkpoints")[0] for folder in (whole, killed))
    wrong = [f"weights differ: {key}" for key, value in ours["model"].items() if not value.equal(theirs["model"][key])]
    wrong += [] if ours["update"] == theirs["update"] == 600 else ["not all updates were made"]
    bundles = list(killed.glob("subnets/*/bundle"))
    for bundle in bundles:
        load_bundle(bundle)
    wrong += [f"left behind: {path}" for path in (killed / "checkpoints").glob(".*")]
    return wrong + ([] if len(bundles) >= 2 and (killed / "report.html").exists() else ["the family is not whole"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        found, hit = torture(Path(place), arguments.kills, arguments.seed)
    where = ", ".join(f"{count} in {name}" for name, count in hit.most_common())
    print(*found, f"{arguments.kills} kills ({where}): ", sep="\n", end="")
    print(f"{len(found)} failures" if found else "all resumed, weights bit-identical, every bundle whole")
    sys.exit(bool(found))
