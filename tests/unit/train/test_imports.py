"""Imports between a command and its first step: only those that are needed."""

import json
import subprocess
import sys

import pytest

OF_OTHER_COMMANDS = {"cpuinfo", "sklearn", "submitit", "tabulate"}
OF_RANKS = {"h5py", "jinja2", "numpy", "PIL", "scipy", "torch"}
"""Modules that training imports, or that some releases of torch import."""


def imported_by(*statements):
    """Top-level names of the modules that a new Python has imported after `statements`."""
    code = "; ".join(
        ("import json, sys", *statements, "print(json.dumps(sorted({n.split('.')[0] for n in sys.modules})))")
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def load(workload):
    return (
        "from hpcai500.spec.workload import find_workload",
        "from hpcai500.train.workload import load_workload",
        f"load_workload(find_workload('{workload}'))",
    )


def test_the_command_that_starts_ranks_leaves_the_computing_to_them():
    command = "['run', 'image_classification', '--problem', 'mini', '--data', '/absent']"
    found = imported_by("from hpcai500.cli.main import main", f"assert main({command}) == 2")
    assert not found & (OF_OTHER_COMMANDS | OF_RANKS)


@pytest.mark.parametrize(("workload", "spared"), [("image_classification", {"h5py"}), ("extreme_weather", set())])
def test_a_rank_imports_what_it_trains_with(workload, spared):
    found = imported_by("import hpcai500.train.worker", *load(workload))
    assert not found & (OF_OTHER_COMMANDS | spared)
