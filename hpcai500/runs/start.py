"""Starting one seed's run here, unless an earlier start has finished it."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from hpcai500.errors import OccupiedError, SpecError
from hpcai500.launch.environment import Machine
from hpcai500.launch.slurm.step import train_in_allocation
from hpcai500.launch.start import train
from hpcai500.score.record.result import Result, read_result, write_result
from hpcai500.spec.run import RunSpec, read_run, read_spec
from hpcai500.spec.site import Site
from hpcai500.text import counted


class Outcome(NamedTuple):
    result: Result
    is_kept: bool
    """An earlier start had finished the run; nothing was trained now."""


def run_once(
    spec: RunSpec, start: Callable[[RunSpec], None], *, resume: bool = False, say: Callable[[str], None]
) -> Outcome:
    """Train one seed, or keep the result of a finished run of the same experiment and seed.

    `start` starts the ranks and waits for them. `resume` continues an unfinished run.

    Raises:
        OccupiedError: if the run's folder holds an unfinished run, unless `resume` can continue it.
        SpecError: if another launcher started that run.
    """
    if kept := finished(spec.folder):
        say(f"seed {spec.seed}: done already, kept: {spec.folder}")
        return Outcome(kept, is_kept=True)
    claim(spec, resume=resume)
    say(
        f"seed {spec.seed}: {spec.workload.title}, {spec.problem} problem, {spec.level} level, "
        f"{counted(spec.world_size, 'rank')}, {spec.settings.execution.precision}: {spec.folder}"
    )
    try:
        start(spec)
    finally:
        result = write_result(spec.folder)
    return Outcome(result, is_kept=False)


def start_ranks(spec: RunSpec, site: Site, machine: Machine, *, in_allocation: bool, quiet: bool) -> None:
    """Start the run's ranks in the Slurm allocation around us, or on this machine, and wait for them.

    Raises:
        HpcAi500Error: with the first rank's reason and exit code.
    """
    if in_allocation:
        train_in_allocation(spec, site, machine, quiet=quiet)
    else:
        train(spec, machine, quiet=quiet)


def claim(spec: RunSpec, *, resume: bool) -> None:
    """Write the run's folder, or accept that of an earlier start which `resume` continues.

    Raises:
        OccupiedError: if the folder exists and is not to be continued, or is another experiment's.
        SpecError: if the earlier start used another launcher.
    """
    try:
        spec.write()
        return
    except OccupiedError:
        if not (resume and _is_same_run(spec)):
            raise
    earlier = read_spec(spec.folder / "run.json")
    if earlier.launcher != spec.launcher:
        raise SpecError(
            f"{spec.folder} was started by {earlier.launcher}, not by {spec.launcher}",
            f"continue with --launcher {earlier.launcher}, or give another --output",
        )


def finished(folder: Path) -> Result | None:
    """The result of a run that ended well; None for any other."""
    path = folder / "result.json"
    if not path.exists():
        return None
    result = read_result(path)
    return result if result.status == "success" else None


def _is_same_run(spec: RunSpec) -> bool:
    """Whether `spec`'s folder holds an earlier start of the same run."""
    path = spec.folder / "run.json"
    return path.exists() and read_run(path).experiment_digest == spec.experiment_digest
