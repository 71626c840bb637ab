"""An experiment as a command asks for it, and the runs that it becomes: one RunSpec per seed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hpcai500.errors import SpecError
from hpcai500.launch.allocation.slurm import read_allocation
from hpcai500.launch.decision import Wanted, decide
from hpcai500.launch.environment import Machine
from hpcai500.launch.layout import Allocation, Layout
from hpcai500.launch.registry import job_launcher
from hpcai500.launch.requirements import require_software
from hpcai500.runs.data import data_folder
from hpcai500.runs.start import finished
from hpcai500.spec.levels import Level
from hpcai500.spec.models import parse
from hpcai500.spec.run import RunSpec, read_spec, resolve
from hpcai500.spec.site import Site
from hpcai500.system.devices import native_precision, num_gpus
from hpcai500.system.host import host_name

AUTO = "auto"
"""The precision in which this machine computes fastest."""


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """What a command asks to train. An empty text leaves the choice to the site, then to a default."""

    workload: str
    problem: str = "full"
    level: Level = Level.FREE
    seeds: Sequence[int] = (0,)
    backend: str = "torch"
    procs_per_node: int | None = None
    settings: Mapping[str, Any]
    """Values of `--set`, by dotted key."""
    precision: str = ""
    """`auto`, or a precision; empty: the problem's own."""
    deterministic: bool = False
    stop_at_target: bool = False
    unranked: bool = False
    """A trial: any setting may be changed, and the result is never ranked."""
    system: str = ""
    """The machine's name in rankings."""
    data: str = ""
    output: str = ""
    staging: str = ""
    resume_from: str = ""

    @property
    def overrides(self) -> dict[str, Any]:
        """All changed settings, those of the short options included.

        Raises:
            SpecError: if the precision is still `auto`, which only this machine can resolve.
        """
        if self.precision == AUTO:
            raise SpecError("--precision auto asks this machine, and the run is for others", "name a precision")
        short: dict[str, Any] = {
            "execution.precision": self.precision,
            "execution.deterministic": self.deterministic,
            "execution.stop_at_target": self.stop_at_target,
        }
        return {**self.settings, **{key: value for key, value in short.items() if value}}

    @property
    def may_use_gpus(self) -> bool:
        return bool(self.settings.get("execution.device", "auto") != "cpu")


def resolve_here(
    experiment: Experiment, site: Site, machine: Machine, *, launcher: str | None = None, nodes: int | None = None
) -> tuple[list[RunSpec], Allocation | None]:
    """The runs, laid out in the allocation around us or on this machine; and the allocation if they use it.

    Raises:
        SpecError: for a layout that cannot be started, or a run that cannot be resolved.
    """
    on_gpus = experiment.may_use_gpus
    wanted = Wanted(experiment.backend, launcher, nodes, experiment.procs_per_node, on_gpus=on_gpus)
    layout, allocation = decide(wanted, site, read_allocation(machine.env), machine.env)
    if experiment.precision == AUTO and not allocation:
        experiment = replace(experiment, precision=native_precision(on_gpus=on_gpus and num_gpus() > 0))
    system = site.system or (allocation and allocation.cluster) or host_name()
    return resolve_seeds(experiment, layout, site, system), allocation


def resolve_at(experiment: Experiment, site: Site, counts: Sequence[int] = ()) -> list[list[RunSpec]]:
    """The runs of a site's jobs: a list per number of nodes in `counts`, or one for the site's own number.

    Raises:
        SpecError: for a layout that the site's launcher cannot start, or a run that cannot be resolved.
        MachineError: if the nodes use this Python, and it lacks a package.
    """
    if uses_this_python(site):
        require_software(experiment.backend, site.slurm.launcher, packages_only=True)
    procs_per_node = experiment.procs_per_node
    procs_per_node = site.slurm.procs_per_node if procs_per_node is None else procs_per_node
    layouts = [_layout_at(site, experiment.backend, n, procs_per_node) for n in counts or [site.slurm.nodes]]
    return [resolve_seeds(experiment, layout, site, site.system or host_name()) for layout in layouts]


def resolve_seeds(experiment: Experiment, layout: Layout, site: Site, system: str) -> list[RunSpec]:
    """The run of each seed on `layout`; all but the seed is resolved once.

    `site` and `system`, the machine's name, fill in what the experiment leaves empty.

    Raises:
        SpecError: for settings that cannot be resolved, or a checkpoint that the runs cannot start from.
    """
    staging = experiment.staging or site.places.staging
    resume_from = experiment.resume_from
    first = resolve(
        experiment.workload,
        problem=experiment.problem,
        level=experiment.level,
        seed=experiment.seeds[0],
        overrides=experiment.overrides,
        unranked=experiment.unranked,
        backend=experiment.backend,
        launcher=layout.launcher,
        nodes=layout.nodes,
        procs_per_node=layout.procs_per_node,
        num_ranks=layout.num_ranks,
        system=experiment.system or system,
        data=data_folder(experiment.data, experiment.workload, experiment.problem, site),
        output=str(Path(experiment.output or site.places.results or "results").absolute()),
        staging=str(Path(staging).absolute()) if staging else "",
        resume_from=str(Path(resume_from).absolute()) if resume_from else "",
    )
    specs = [first, *(first.with_seed(seed) for seed in experiment.seeds[1:])]
    if first.resume_from:
        for spec in specs:
            require_resumable(spec)
    return specs


def require_resumable(spec: RunSpec) -> None:
    """Check that the run can start from the checkpoint of `--resume-from`.

    Raises:
        SpecError: if that run trains something else, or has nothing left to train.
    """
    path = Path(spec.resume_from) / "run.json"
    if not path.exists():
        raise SpecError(f"--resume-from {spec.resume_from}: no run.json there", "give the folder of a run")
    earlier = read_spec(path)
    if earlier.seed != spec.seed:
        raise SpecError(f"--resume-from: that run's seed is {earlier.seed}", f"use --seed {earlier.seed}")
    if earlier.training_digest != spec.training_digest:
        raise SpecError(
            "--resume-from: that run differs in more than its backend",
            "give the same workload, problem, level, settings and number of ranks",
        )
    is_new = not (spec.folder / "run.json").exists()  # a run that has begun has checkpoints of its own
    done = finished(Path(spec.resume_from))
    if is_new and done and done.epochs[-1].epoch_num >= spec.settings.problem.num_epochs:
        raise SpecError(f"--resume-from {spec.resume_from}: that run has trained all its epochs", "start a new run")


def uses_this_python(site: Site) -> bool:
    """Whether the ranks run this process's Python: the site has neither its own nor a container."""
    return not site.software.python and site.container.engine == "none"


def _layout_at(site: Site, backend: str, nodes: int, procs_per_node: int) -> Layout:
    """The layout of a job at `site`.

    Raises:
        SpecError: if the site's launcher cannot start it.
    """
    launcher = job_launcher(site.slurm.launcher)
    record = {"launcher": launcher.name, "backend": backend, "nodes": nodes, "procs_per_node": procs_per_node}
    layout = parse(Layout, record, "the ranks")
    launcher.require(layout, site, {}, in_allocation=True)
    return layout
