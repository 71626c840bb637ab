"""`hpcai500 list`: what this installation offers, and what is missing to use each."""

import argparse
from pathlib import Path
from typing import Any

from hpcai500.cli.options import Commands, add_command
from hpcai500.cli.output import print_json


def add_parser(commands: Commands) -> None:
    add_command(commands, "list", main, "workloads, problems, levels, backends, and what is missing")


def main(args: argparse.Namespace) -> int:
    found = listing()
    if args.json:
        print_json(found)
        return 0
    for workload in found["workloads"]:
        print(f"{workload['name']}: {workload['title']}, {workload['model']}")
        for problem in workload["problems"]:
            missing = f"; missing: {problem['missing']}" if problem["missing"] else ""
            print(
                f"  {problem['name']}: {problem['dataset']}; {problem['metric']} {problem['target_quality']:g} "
                f"in {problem['num_epochs']} epochs, n = {problem['penalty_exponent']}{missing}"
            )
    print(f"levels: {', '.join(found['levels'])}")
    for kind in ("backend", "launcher"):
        for each in found[f"{kind}s"]:
            print(f"{kind}: {'; missing: '.join([each['name'], *each['missing']])}")
    print(f"sites: {', '.join(found['sites'])}")
    print(f"GPUs here: {found['num_gpus']}")
    return 0


def listing() -> dict[str, Any]:
    """What `list --json` prints."""
    from hpcai500.launch.registry import offered
    from hpcai500.launch.software import BACKENDS
    from hpcai500.spec.levels import Level
    from hpcai500.spec.site import find_sites
    from hpcai500.spec.workload import shipped_workloads
    from hpcai500.system.devices import num_gpus

    return {
        "workloads": [_workload_record(folder) for folder in shipped_workloads()],
        "levels": [level.value for level in Level],
        "backends": [{"name": name, "missing": _remedies(name, "local")} for name in BACKENDS],
        "launchers": [{"name": name, "missing": _remedies("torch", name)} for name in offered()],
        "sites": list(find_sites()),
        "num_gpus": num_gpus(),
    }


def _remedies(backend: str, launcher: str) -> list[str]:
    """What is missing to use both, and how to get it."""
    from hpcai500.launch.requirements import missing

    return [f"{name} ({remedy})" for name, remedy in missing(backend, launcher)]


def _workload_record(folder: Path) -> dict[str, Any]:
    from hpcai500.runs.data import default_data
    from hpcai500.spec.workload import load_rules

    rules = load_rules(folder)
    problems = []
    for name, settings in rules.problems.items():
        problem, data = settings.problem, default_data(folder.name, name)
        problems.append(
            {
                "name": name,
                "dataset": problem.dataset,
                "metric": problem.metric,
                "target_quality": problem.target_quality,
                "num_epochs": problem.num_epochs,
                "penalty_exponent": problem.penalty_exponent,
                "missing": "" if data.is_dir() else f"data in {data}",
            }
        )
    return {"name": folder.name, "title": rules.title, "model": rules.model, "problems": problems}
