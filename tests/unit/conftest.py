"""Runs to rank, and a mark on what another torch or numpy may change."""

import sys
from pathlib import Path
from types import ModuleType

import pytest

from hpcai500.score.record.result import write_result

NATIVE = {"torch", "torchvision", "numpy", "scipy", "sklearn", "h5py", "PIL", "faster_coco_eval"}


def pytest_collection_modifyitems(items):
    uses = {module: _uses_native(module) for module in {item.module for item in items if _is_here(item)}}
    for item in items:
        if uses.get(getattr(item, "module", None)):
            item.add_marker("native")


def _is_here(item):
    return Path(__file__).parent in item.path.parents


def _uses_native(module):
    """Whether a module, or one that it takes names from, has a name of torch or of another compiled package."""
    homes = {name for name in map(_home, vars(module).values()) if name in sys.modules}
    names = [_home(value) for home in (module.__name__, *homes) for value in vars(sys.modules[home]).values()]
    return any(name.partition(".")[0] in NATIVE for name in (*homes, *names))


def _home(value):
    return value.__name__ if isinstance(value, ModuleType) else str(getattr(value, "__module__", ""))


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
