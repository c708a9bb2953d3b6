"""Verbs that find subnets in a trained run and tell of them."""

from typing import Any


def search(
    run: str,
    budget: str = "",
    trials: int | None = None,
    device: str | None = None,
    worker: bool = False,
    json: bool = False,
) -> dict[str, Any]:
    """Find, export and measure the best subnet within a budget, or without one a family of sizes.

    Args:
        run: Folder of a trained run.
        budget: Limits, e.g. "size<=1MB, rtf<=0.05, latency_p90<=20ms, peak_memory<=40MB, params<=1M, macs<=100M", or
            on the task's own error, e.g. "wer<=5".
        trials: Architectures to evaluate, by default as the recipe says.
        device: Device profile to measure on, by default the recipe's.
        worker: Only evaluate architectures, beside a search of the same run, budget and trials in another process.
        json: Print the result as JSON.
    """
    from todm.files import read_json
    from todm.run import Run
    from todm.search.budget import Budget, check_feasible

    opened = Run.open(run)
    limits = Budget.parse(budget, opened.searched)
    costs = limits.without(opened.searched)  # How low the error can get only the search finds out.
    floor = opened.path / "search" / "floor.json"
    if floor.exists():
        check_feasible(costs, read_json(floor))

    from todm.family import Family

    if worker:
        return {"evaluated": Family(opened, device).assist(limits, trials)}
    with opened.locked(), opened.timed("search"):
        family = Family(opened, device)
        check_feasible(costs, family.floor())
        if budget:
            return family.best(limits, trials)
        return {"subnets": family.sizes(trials)}


def extract(run: str, arch: str, name: str | None = None, json: bool = False) -> dict[str, Any]:
    """Copy one architecture out of a trained supernet, as a standalone network in safetensors.

    Args:
        run: Folder of a trained run.
        arch: `smallest`, `largest`, or a JSON object or file with the value of every choice.
        name: Name of the subnet; by default made of its size and error rate.
        json: Print the result as JSON.
    """
    from todm.run import Run
    from todm.trained import Trained, read_arch

    opened = Run.open(run)
    with opened.locked():
        trained = Trained(opened)
        folder = trained.extract(read_arch(arch, trained.space), name)
    return {"subnet": str(folder)}


def advise(run: str, budget: str = "", device: str | None = None, json: bool = False) -> dict[str, Any]:
    """Say which subnet of a run fits a budget on a device, what it scores, and how sure that is.

    Args:
        run: Folder of a run that has been searched.
        budget: Limits, e.g. "size<=2MB, rtf<=0.3"; without any, the most accurate subnet.
        device: Device profile, by default the recipe's: a name or the path of a YAML file.
        json: Print the result as JSON.
    """
    from todm.export.device import find_device
    from todm.run import Run
    from todm.search.advise import advise as choose
    from todm.search.advise import as_text, described
    from todm.search.budget import Budget
    from todm.search.evidence import options_of

    opened = Run.open(run)
    limits = Budget.parse(budget, opened.searched)
    profile = find_device(device or opened.recipe.export.device)
    options, metric = options_of(opened.path, profile.name, profile.runtime, profile.precision)
    result = {"device": profile.name, "budget": str(limits), **described(choose(options, limits, metric), metric)}
    if not json:
        print(as_text(result, metric))
    return result


def report(run: str) -> dict[str, Any]:
    """Write report.html from what a run folder holds.

    Args:
        run: Folder of a run.
    """
    from todm.export.report import write_report
    from todm.run import Run

    return {"report": str(write_report(Run.open(run).path))}
