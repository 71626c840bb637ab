"""One validation from the request to the folder of its measurements: the target, the plan, the agents, the wait."""

import shutil
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, NamedTuple

from hpcai500 import __version__
from hpcai500.errors import SpecError, nearest
from hpcai500.files import write_atomic
from hpcai500.launch.allocation.slurm import read_allocation
from hpcai500.launch.process import handled
from hpcai500.launch.slurm.cluster import ask_states, expand_names
from hpcai500.spec.site import Site
from hpcai500.system.host import host_name
from hpcai500.text import counted
from hpcai500.validate.conduct.jobs import Agents
from hpcai500.validate.conduct.launching import (
    STAGES_OF_LEVEL,
    STEP_TIMEOUT_SEC,
    TIMEOUT_SEC,
    WRITER,
    Choice,
    choose_nodes,
    open_folder,
    start_here,
    start_in_allocation,
    submit_agents,
    write_order,
)
from hpcai500.validate.conduct.watch import Limits, settle, watch
from hpcai500.validate.files import NEEDS_OTHERS, PLAN, Order, Plan, Stage, Trouble, append

_END_SEC = 20.0
"""Time that Slurm may take to end a job after all its agents have ended."""
_STAGES: tuple[Stage, ...] = STAGES_OF_LEVEL[3]
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, kw_only=True)
class ValidationRequest:
    """What is to be validated, and how long that may take."""

    level: Literal[1, 2, 3]
    stages: tuple[Stage, ...]
    site: Site | None = None
    """None: this machine, or the allocation around us."""
    site_name: str = ""
    partition: str = ""
    """Empty: the site's own."""
    nodes: str = ""
    """`all`, a number, or names as Slurm writes them; empty: all."""
    per_node: bool = False
    """One job on each idle node, for a busy partition."""
    timeout_sec: float
    """Limit for everything, the wait in the queue included."""
    step_timeout_sec: float
    """Limit for one step of one node."""


class Target(NamedTuple):
    """Where agents run, and what starts them there."""

    system: str
    site: str
    partition: str
    choice: Choice
    start: Callable[[Path], Agents]
    """Starts the agents; takes the validation's folder."""


class Validation(NamedTuple):
    """A validation that is about to begin: nothing has been written yet."""

    request: ValidationRequest
    target: Target
    plan: Plan


def validation_request(
    *, level: Literal[1, 2, 3], stages: str | None, per_node: bool, site: Site | None, site_name: str = "",
    partition: str = "", nodes: str = "", timeout_sec: float | None = None, step_timeout_sec: float | None = None,
) -> ValidationRequest:  # fmt: skip
    """A request with the level's own stages and limits for those that are None.

    Raises:
        SpecError: for an unknown stage, or only stages that a node cannot do by itself.
    """
    return ValidationRequest(
        level=level,
        stages=choose_stages(level, stages, per_node=per_node),
        site=site,
        site_name=site_name,
        partition=partition,
        nodes=nodes,
        per_node=per_node,
        timeout_sec=timeout_sec or TIMEOUT_SEC[level],
        step_timeout_sec=step_timeout_sec or STEP_TIMEOUT_SEC[level],
    )


def choose_stages(level: int, names: str | None, *, per_node: bool) -> tuple[Stage, ...]:
    """The stages of `names`, or else the level's, in their own order; `per_node` drops those that need other nodes.

    Raises:
        SpecError: for an unknown stage, or if none is left.
    """
    chosen = STAGES_OF_LEVEL[level]
    if names is not None:
        asked = [name.strip() for name in names.split(",")]
        for name in asked:
            if name not in _STAGES:
                hint = f"{nearest(name, _STAGES)} (have: {', '.join(_STAGES)})"
                raise SpecError(f"--stages {name}: unknown stage", hint)
        chosen = tuple(stage for stage in _STAGES if stage in asked)
    if not per_node:
        return chosen
    possible = tuple(stage for stage in chosen if stage not in NEEDS_OTHERS)
    if not possible:
        raise SpecError("--per-node: links and collectives need several nodes", "leave --per-node out")
    return possible


def plan_validation(request: ValidationRequest, env: Mapping[str, str]) -> Validation:
    """Choose the nodes and write down what is planned, in memory only.

    Raises:
        SpecError: for nodes that the target lacks, or options that it cannot have.
        MachineError: if Slurm does not answer.
    """
    target = target_of(request, env)
    plan = Plan(
        system=target.system, site=target.site, partition=target.partition, level=request.level,
        stages=request.stages, nodes=target.choice.nodes, started=datetime.now(UTC).isoformat(timespec="seconds"),
        version=__version__,
    )  # fmt: skip
    return Validation(request, target, plan)


def conduct(validation: Validation, output: Path, say: Callable[[str], None]) -> Path:
    """Run the stages on all nodes; the folder of what they measured.

    Raises:
        OccupiedError: if another validation of the system began in the same second.
        InputError: if Slurm refuses the job.
    """
    request, target, plan = validation
    folder = open_folder(output, plan)
    write_atomic(folder / PLAN, plan.model_dump_json(indent=2) + "\n")
    append(folder, WRITER, target.choice.troubles)
    members = target.choice.members
    say(f"{folder}: {counted(len(members), 'node')}, {', '.join(plan.stages)}")
    for trouble in target.choice.troubles:
        say(f"{', '.join(trouble.nodes)}: {trouble.message}")
    if members:
        alone = request.per_node or len(members) < 2
        write_order(folder, Order(members=members, alone=alone, step_timeout_sec=request.step_timeout_sec))
        append(folder, WRITER, run_agents(folder, validation, say))
    return folder


def run_agents(folder: Path, validation: Validation, say: Callable[[str], None]) -> list[Trouble]:
    """Start the agents and wait for them; what never came, and why."""
    request, target, plan = validation
    limits = Limits(request.step_timeout_sec, request.timeout_sec)
    agents = target.start(folder)
    try:
        with handled(_interrupt, *_ENDING):
            troubles = watch(folder, target.choice.members, plan.stages, agents, limits, say)
            lost = settle(agents, plan.stages[-1], 0.0 if troubles else _END_SEC)
    finally:
        agents.end()
        for name in ("addresses", "shared"):
            shutil.rmtree(folder / name, ignore_errors=True)
    known = {node for trouble in troubles for node in trouble.nodes}
    return [*troubles, *(one for one in lost if not set(one.nodes) & known)]


def target_of(request: ValidationRequest, env: Mapping[str, str]) -> Target:
    """A site's partition, the allocation around us, or this machine.

    Raises:
        SpecError: for options that only a site's partition has, or nodes that the partition lacks.
        MachineError: if Slurm does not answer.
    """
    allocation = read_allocation(env)
    if request.site and allocation is None:
        return _target_at_site(request, request.site)
    if request.per_node or request.partition or request.nodes:
        raise SpecError(
            "--nodes, --partition and --per-node choose among a site's nodes", "give --site, outside of a job"
        )
    site = request.site or Site()
    system = site.system or (allocation.cluster if allocation else "") or host_name()
    if allocation is None:
        node = host_name()
        return Target(system, "", "", Choice((node,), ()), lambda folder: start_here(folder, node))
    nodes = tuple(expand_names(env["SLURM_JOB_NODELIST"]))
    partition = env.get("SLURM_JOB_PARTITION", "")
    choice = Choice(nodes, ())
    return Target(
        system, request.site_name, partition, choice, lambda folder: start_in_allocation(folder, site, nodes)
    )


def _target_at_site(request: ValidationRequest, site: Site) -> Target:
    partition, states = ask_states(request.partition or site.slurm.partition)
    choice = choose_nodes(request.nodes or "all", states, partition, request.stages[0], per_node=request.per_node)

    def submit(folder: Path) -> Agents:
        return submit_agents(
            folder, site, partition, choice.members, per_node=request.per_node, timeout_sec=request.timeout_sec
        )

    return Target(site.system or host_name(), request.site_name, partition, choice, submit)


def _interrupt(_: str) -> None:
    raise KeyboardInterrupt
