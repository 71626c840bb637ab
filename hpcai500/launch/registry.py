"""The launchers by name. Each module of `hpcai500.launch.launchers` has one, as `LAUNCHER`."""

import pkgutil
from functools import cache
from importlib import import_module

from hpcai500.errors import HpcAi500Error, SpecError, nearest
from hpcai500.launch import launchers as folder
from hpcai500.launch.launcher import Launcher


@cache
def launchers() -> dict[str, Launcher]:
    """Every launcher by its name, sorted by name."""
    found: dict[str, Launcher] = {}
    for module in pkgutil.iter_modules(folder.__path__):
        launcher: Launcher = import_module(f"{folder.__name__}.{module.name}").LAUNCHER
        if launcher.name in found:
            raise HpcAi500Error(f"two launchers are named {launcher.name!r}")
        found[launcher.name] = launcher
    return dict(sorted(found.items()))


def offered() -> list[str]:
    """The names that `--launcher` accepts."""
    return [name for name, launcher in launchers().items() if launcher.is_offered]


def find_launcher(name: str) -> Launcher:
    """The launcher with this name, which may come from a run's record.

    Raises:
        SpecError: if there is none; the message lists those that users may choose.
    """
    return launchers()[name] if name in launchers() else choose_launcher(name)


def choose_launcher(name: str) -> Launcher:
    """The launcher with this name, which a user gave.

    Raises:
        SpecError: if there is none that users may choose.
    """
    if name not in offered():
        raise SpecError(f"unknown launcher {name!r}", nearest(name, offered()))
    return launchers()[name]


def job_launcher(name: str) -> Launcher:
    """The launcher with this name, which a site uses for its jobs.

    Raises:
        SpecError: if there is none, or if it cannot start ranks on the nodes of an allocation.
    """
    launcher = choose_launcher(name)
    if not launcher.uses_allocation:
        able = [each for each in offered() if find_launcher(each).uses_allocation]
        raise SpecError(
            f"slurm.launcher: {name} cannot start ranks on the nodes of a job", f"use one of {', '.join(able)}"
        )
    return launcher
