"""`hpcai500 list`."""

import argparse
from pathlib import Path
from typing import Any

from hpcai500.cli.output import default_data, print_json
from hpcai500.launch.registry import offered
from hpcai500.launch.requirements import missing
from hpcai500.launch.software import BACKENDS
from hpcai500.spec.levels import Level
from hpcai500.spec.site import find_sites
from hpcai500.spec.workload import load_rules, shipped_workloads
from hpcai500.system.devices import num_gpus


def main(args: argparse.Namespace) -> int:
    listing: dict[str, Any] = {
        "workloads": [workload_record(folder) for folder in shipped_workloads()],
        "levels": [level.value for level in Level],
        "backends": [{"name": name, "missing": remedies(name, "local")} for name in BACKENDS],
        "launchers": [{"name": name, "missing": remedies("torch", name)} for name in offered()],
        "sites": list(find_sites()),
        "num_gpus": num_gpus(),
    }
    if args.json:
        print_json(listing)
        return 0
    for workload in listing["workloads"]:
        print(f"{workload['name']}: {workload['title']}, {workload['model']}")
        for problem in workload["problems"]:
            missing = f"; missing: {problem['missing']}" if problem["missing"] else ""
            print(
                f"  {problem['name']}: {problem['dataset']}; {problem['metric']} {problem['target_quality']:g} "
                f"in {problem['num_epochs']} epochs, n = {problem['penalty_exponent']}{missing}"
            )
    print(f"levels: {', '.join(listing['levels'])}")
    for kind in ("backend", "launcher"):
        for found in listing[f"{kind}s"]:
            print(f"{kind}: {'; missing: '.join([found['name'], *found['missing']])}")
    print(f"sites: {', '.join(listing['sites'])}")
    print(f"GPUs here: {listing['num_gpus']}")
    return 0


def remedies(backend: str, launcher: str) -> list[str]:
    """What is missing to use both, and how to get it."""
    return [f"{name} ({remedy})" for name, remedy in missing(backend, launcher)]


def workload_record(folder: Path) -> dict[str, Any]:
    rules = load_rules(folder)
    return {
        "name": folder.name,
        "title": rules.title,
        "model": rules.model,
        "problems": [
            {
                "name": name,
                "dataset": settings.problem.dataset,
                "metric": settings.problem.metric,
                "target_quality": settings.problem.target_quality,
                "num_epochs": settings.problem.num_epochs,
                "penalty_exponent": settings.problem.penalty_exponent,
                "missing": ""
                if default_data(folder.name, name).is_dir()
                else f"data in {default_data(folder.name, name)}",
            }
            for name, settings in rules.problems.items()
        ],
    }
