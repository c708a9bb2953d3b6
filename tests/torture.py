"""Kill a whole run at random moments, again and again, and see whether it ends as an undisturbed one does.

    python tests/torture.py --kills 100

Training, search and export of the toy task, SIGKILL at a random moment of a random part, the same command again. In the
end the weights must be those of an undisturbed run bit for bit, and every bundle whole.
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

from tqdm import tqdm

from todm.checkpoint import list_checkpoints, newest_checkpoint
from todm.export.bundle import load_bundle

RECIPE = f"""
name: toy
task: {Path(__file__).parent / "toy_task.py"}:ToyTask
training: {{updates: 600, growth: 0.2, divergence: adaptive, distillation_start: 0.4,
  evaluate_every: 200, checkpoint_every: 10}}
search: {{trials: 10, measured: 4, family: 2}}
export: {{runtimes: [onnx]}}
"""

ORDER = ["start", "training", "search", "export"]
"""The parts of a run."""
AIMED = {"start": 1, "training": 6, "search": 2, "export": 1}
"""How often a part still to come is aimed at. Export lasts longest by far, and changes no weight."""


class Failure(Exception):
    """A start that ended with an error."""


def stage(out: Path) -> str:
    """How far a run has come."""
    files = list_checkpoints(out / "checkpoints")
    if not files or files[-1].stem != "update-0000600":
        return "training" if files else "start"
    return "export" if (out / "subnets").exists() else "search"


class Start:
    """One start of the run in a folder.

    Args:
        recipe: What is run.
        out: The run folder.
    """

    def __init__(self, recipe: Path, out: Path) -> None:
        self.out, self.begin, self.errors = out, time.monotonic(), out.with_suffix(".errors")
        command = [sys.executable, "-m", "todm", "run", str(recipe), "--out", str(out)]
        with self.errors.open("wb") as errors:
            self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors)

    def reach(self, part: str) -> float | None:
        """Seconds since the start at which the run was seen in a part or a later one; None: it has ended."""
        while self.process.poll() is None:
            if ORDER.index(stage(self.out)) >= ORDER.index(part):
                return time.monotonic() - self.begin
            time.sleep(0.02)
        return None

    def ends_within(self, seconds: float | None) -> bool:
        """Whether it ends by itself; if not, it is killed.

        Raises:
            Failure: it ended with an error.
        """
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            return False
        if self.process.returncode:
            raise Failure(f"a start ended with {self.process.returncode}: {self.errors.read_text()[-500:]}")
        return True


def torture(folder: Path, kills: int, seed: int) -> tuple[list[str], Counter[str]]:
    """Kill runs that many times, then let the last end; what was wrong, and how many kills hit which part."""
    recipe, rng, wrong, hit = folder / "recipe.yaml", random.Random(seed), [], Counter()
    recipe.write_text(RECIPE)
    bar = tqdm(total=kills, unit="kill")
    try:
        undisturbed = Start(recipe, folder / "whole")
        reached = [undisturbed.reach(part) or 0.0 for part in ORDER]
        undisturbed.ends_within(None)
        ends = [*reached[1:], time.monotonic() - undisturbed.begin]
        lasts = {part: end - begin for part, begin, end in zip(ORDER, reached, ends, strict=True)}
        out, runs = folder / "killed-0", 0
        while hit.total() < kills:
            now = ORDER.index(stage(out))
            part = rng.choices(ORDER[now:], [AIMED[part] for part in ORDER[now:]])[0]
            # What a start that goes on does before it gets where the last one was is a part, too.
            again = lasts["start"] if now and part == ORDER[now] else 0.0
            start = Start(recipe, out)
            if start.reach(part) is not None and not start.ends_within(rng.uniform(0, again + lasts[part])):
                hit[stage(out)] += 1
                bar.update()
                if stage(out) != "export":
                    continue
                start = Start(recipe, out)  # one kill there is enough: a run would stay there for all that are left
            start.ends_within(None)
            wrong += differences(folder / "whole", out)
            runs += 1
            out = folder / f"killed-{runs}"
        if out.exists():
            Start(recipe, out).ends_within(None)
            wrong += differences(folder / "whole", out)
    except Failure as failure:
        wrong.append(str(failure))
    finally:
        bar.close()
    return wrong, hit


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
