"""`hpcai500 validate`: is every node as fast and as healthy as it should be?"""

import argparse
import os
import shutil
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from hpcai500 import __version__
from hpcai500.cli.site_options import site_with
from hpcai500.errors import InputError, SpecError, nearest
from hpcai500.files import write_atomic
from hpcai500.launch.allocation.slurm import read_allocation
from hpcai500.launch.process import handled
from hpcai500.launch.slurm.cluster import ask_states, expand_names
from hpcai500.report.validation.render import render
from hpcai500.spec.site import Site
from hpcai500.system.host import host_name
from hpcai500.validate.conduct.jobs import Agents
from hpcai500.validate.conduct.launching import (
    NEEDS_OTHERS,
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
from hpcai500.validate.files import PLAN, Order, Plan, Stage, Trouble, append
from hpcai500.validate.judge.baseline import parse_baseline, read_baseline, save_baseline
from hpcai500.validate.judge.expectations import read_site_values
from hpcai500.validate.judge.verdict import judge

_END_SEC = 20.0
"""That Slurm may take to end a job whose agents have all ended."""
_STAGES: tuple[Stage, ...] = STAGES_OF_LEVEL[3]


class Target(NamedTuple):
    """Where agents run, and what starts them there."""

    system: str
    site: str
    partition: str
    choice: Choice
    start: Callable[[Path], Agents]
    """With the validation's folder."""


def main(args: argparse.Namespace) -> int:
    require_usable(args)
    folder = validated(args, stages_of(args)) if args.report is None else Path(args.report)
    report = judge(
        folder, baseline=_path(args.baseline), expected=_path(args.expected), any_baseline=args.any_baseline
    )
    if args.report is None:
        for name in ("json", "html"):
            write_atomic(folder / f"report.{name}", render(report, name) + "\n")
        print(f"{folder}: report.html and report.json", file=sys.stderr)
    if args.save_baseline:
        left_out = save_baseline(report, Path(args.save_baseline))
        said = f" without {', '.join(left_out)}, which failed" if left_out else ""
        print(f"baseline {args.save_baseline}{said}", file=sys.stderr)
    try:
        print(render(report, args.format or ("json" if args.json else "text")), flush=True)
    except BrokenPipeError:  # the reader went away; the verdict stands
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return report.exit_code


def require_usable(args: argparse.Namespace) -> None:
    """What would otherwise be wrong only when the measurements are over.

    Raises:
        SpecError, InputError: for a time that is none, files that cannot be read, a baseline that cannot be written.
    """
    for option, seconds in (("--timeout-sec", args.timeout_sec), ("--step-timeout-sec", args.step_timeout_sec)):
        if seconds is not None and not seconds > 0:
            raise SpecError(f"{option} {seconds:g}: no time at all", "give seconds above 0, or leave it out")
    for option in ("report", "baseline", "expected", "save_baseline"):
        if getattr(args, option) == "":
            raise SpecError(f"--{option.replace('_', '-')}: empty", "name a path, or leave it out")
    if args.expected:
        read_site_values(Path(args.expected))
    if args.baseline:
        parse_baseline(Path(args.baseline))
    place = Path(args.save_baseline or "baseline.json").parent
    if not (place.is_dir() and os.access(place, os.W_OK)):
        raise InputError(f"--save-baseline {args.save_baseline}: {place} is no folder to write to", "make it first")


def stages_of(args: argparse.Namespace) -> tuple[Stage, ...]:
    """Those of `--stages`, else the level's, in their own order; with `--per-node`, those that need no other node."""
    if args.stages is not None:
        asked = [name.strip() for name in args.stages.split(",")]
        for name in asked:
            if name not in _STAGES:
                raise SpecError(
                    f"--stages {name}: unknown stage", f"{nearest(name, _STAGES)} (have: {', '.join(_STAGES)})"
                )
        chosen = tuple(stage for stage in _STAGES if stage in asked)
    else:
        chosen = STAGES_OF_LEVEL[args.level]
    if not args.per_node:
        return chosen
    alone = tuple(stage for stage in chosen if stage not in NEEDS_OTHERS)
    if not alone:
        raise SpecError("--per-node: links and collectives need several nodes", "leave --per-node out")
    return alone


def validated(args: argparse.Namespace, stages: tuple[Stage, ...]) -> Path:
    """Run the stages; the folder that holds what they found."""
    target = target_of(args, stages[0], os.environ)
    folder, started = open_folder(Path(args.output), target.system)
    plan = Plan(
        system=target.system, site=target.site, partition=target.partition, level=args.level, stages=stages,
        nodes=target.choice.nodes, started=started, version=__version__,
    )  # fmt: skip
    if args.baseline:
        read_baseline(Path(args.baseline), plan, any_baseline=args.any_baseline)
    write_atomic(folder / PLAN, plan.model_dump_json(indent=2) + "\n")
    append(folder, WRITER, target.choice.troubles)

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    members = target.choice.members
    say(f"{folder}: {len(members)} {'node' if len(members) == 1 else 'nodes'}, {', '.join(stages)}")
    for trouble in target.choice.troubles:
        say(f"{', '.join(trouble.nodes)}: {trouble.message}")
    step_sec = args.step_timeout_sec or STEP_TIMEOUT_SEC[args.level]
    limits = Limits(step_sec, args.timeout_sec or TIMEOUT_SEC[args.level])
    if members:
        alone = args.per_node or len(members) < 2
        write_order(folder, Order(members=members, alone=alone, step_timeout_sec=step_sec))
        append(folder, WRITER, attended(folder, plan, target, limits, say))
    return folder


def attended(folder: Path, plan: Plan, target: Target, limits: Limits, say: Callable[[str], None]) -> list[Trouble]:
    """Start the agents and wait for them: what never came."""
    agents = target.start(folder)
    try:
        with handled(_interrupt, *_ENDING):
            troubles = watch(folder, target.choice.members, plan.stages, agents, limits, say)
            lost = settle(agents, plan.stages[-1], 0.0 if troubles else _END_SEC)
    finally:
        agents.end()
        for name in ("addresses", "shared"):
            shutil.rmtree(folder / name, ignore_errors=True)
    told = {node for trouble in troubles for node in trouble.nodes}
    return [*troubles, *(one for one in lost if not set(one.nodes) & told)]


def target_of(args: argparse.Namespace, stage: Stage, env: Mapping[str, str]) -> Target:
    """A site's partition, the allocation around us, or this machine."""
    allocation = read_allocation(env)
    site = site_with(args.site, args.slurm) if args.site else Site()
    if args.site and allocation is None:
        partition, states = ask_states(args.partition or site.slurm.partition)
        choice = choose_nodes(args.nodes or "all", states, partition, stage, per_node=args.per_node)
        timeout_sec = args.timeout_sec or TIMEOUT_SEC[args.level]

        def submit(folder: Path) -> Agents:
            members = choice.members
            return submit_agents(folder, site, partition, members, per_node=args.per_node, timeout_sec=timeout_sec)

        return Target(site.system or host_name(), args.site, partition, choice, submit)
    if args.per_node or args.partition or args.nodes:
        raise SpecError(
            "--nodes, --partition and --per-node choose among a site's nodes", "give --site, outside of a job"
        )
    system = site.system or (allocation.cluster if allocation else "") or host_name()
    if allocation is None:
        node = host_name()
        return Target(system, "", "", Choice((node,), ()), lambda folder: start_here(folder, node))
    nodes = tuple(expand_names(env["SLURM_JOB_NODELIST"]))
    partition = env.get("SLURM_JOB_PARTITION", "")
    return Target(
        system,
        args.site or "",
        partition,
        Choice(nodes, ()),
        lambda folder: start_in_allocation(folder, site, nodes),
    )


_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _interrupt(_: str) -> None:
    raise KeyboardInterrupt


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None
