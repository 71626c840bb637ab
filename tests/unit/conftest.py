"""Runs to rank, and a mark on what another torch may change."""

import sys
from pathlib import Path
from types import ModuleType

import pytest

from hpcai500.score.result import write_result


def pytest_collection_modifyitems(items):
    uses = {module: _uses_torch(module) for module in {item.module for item in items if _is_here(item)}}
    for item in items:
        if uses.get(getattr(item, "module", None)):
            item.add_marker("torch")


def _is_here(item):
    return Path(__file__).parent in item.path.parents


def _uses_torch(module):
    """Whether torch is a name in a module, or in one that it takes names from."""
    homes = [module]
    for value in vars(module).values():
        homes.append(value if isinstance(value, ModuleType) else sys.modules.get(getattr(value, "__module__", None)))
    return any("torch" in vars(home) or home.__name__.startswith("torch") for home in homes if home)


@pytest.fixture
def results(tmp_path):
    return tmp_path / "results"


@pytest.fixture
def add(make_spec, write_run):
    """One finished run: its folder."""

    def add(qualities=(0.5, 0.9), seed=0, system="testbox", total_sec=10.0, energy=None, overrides=None, **fields):
        spec = make_spec(seed=seed, system=system, overrides=overrides, **fields)
        folder = write_run(spec, list(qualities), total_sec=total_sec, energy=energy)
        write_result(folder)
        return folder

    return add
