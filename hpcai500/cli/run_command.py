"""`hpcai500 run`: resolve, train, and derive the result, once for each seed."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hpcai500.cli.output import default_data, print_json
from hpcai500.errors import DataError, HpcAi500Error, OccupiedError, SpecError
from hpcai500.launch.allocation.slurm import read_allocation
from hpcai500.launch.decision import Wanted, decide
from hpcai500.launch.environment import this_machine
from hpcai500.launch.layout import Allocation, Layout
from hpcai500.launch.requirements import require_software
from hpcai500.launch.slurm.step import train_in_allocation
from hpcai500.launch.start import train
from hpcai500.score.record.result import Result, read_result, write_result
from hpcai500.spec.levels import Level
from hpcai500.spec.record import SYNTHETIC
from hpcai500.spec.run import RunSpec, parse_overrides, parse_seeds, read_run, read_spec, resolve
from hpcai500.spec.site import Site, load_site
from hpcai500.spec.workload import find_workload
from hpcai500.system.devices import native_precision, num_gpus
from hpcai500.system.host import host_name
from hpcai500.text import counted, si


def main(args: argparse.Namespace) -> int:
    site = load_site(args.site) if args.site else Site()
    machine = this_machine()
    layout, allocation = layout_here(args, site, machine.env)
    if args.precision == "auto" and not allocation:
        args.precision = native_precision(on_gpus=wants_gpus(args) and num_gpus() > 0)
    system = site.system or (allocation and allocation.cluster) or host_name()
    specs = resolve_seeds(args, parse_seeds(args.seeds), layout, site, system)
    require_data(specs[0])
    if not site.software.python and site.container.engine == "none":
        require_software(args.backend, layout.launcher)

    def start(spec: RunSpec) -> None:
        if allocation:
            train_in_allocation(spec, site, machine, quiet=args.json)
        else:
            train(spec, machine, quiet=args.json)

    results = [run_once(spec, start, resume=args.resume, quiet=args.json, debug=args.debug) for spec in specs]
    if args.json:
        print_json([result.model_dump(mode="json") for result in results])
    return 0


def layout_here(args: argparse.Namespace, site: Site, env: Mapping[str, str]) -> tuple[Layout, Allocation | None]:
    """On the nodes of the allocation around us, else on this machine."""
    wanted = Wanted(args.backend, args.launcher, args.nodes, args.procs_per_node, on_gpus=wants_gpus(args))
    return decide(wanted, site, read_allocation(env), env)


def resolve_seeds(
    args: argparse.Namespace, seeds: Sequence[int], layout: Layout, site: Site, system: str
) -> list[RunSpec]:
    """The run of each seed that `args` ask for, on `layout`; `site` knows where things lie unless `args` say.

    `system` is the machine's name if `args` give none.
    """
    staging = args.staging or site.places.staging
    first = resolve(
        args.workload,
        problem=args.problem,
        level=Level(args.level),
        seed=seeds[0],
        overrides=parse_overrides(args.assignments) | flag_overrides(args),
        unranked=args.unranked,
        backend=args.backend,
        launcher=layout.launcher,
        nodes=layout.nodes,
        procs_per_node=layout.procs_per_node,
        num_ranks=layout.num_ranks,
        system=args.system or system,
        data=data_place(args, site),
        output=str(Path(args.output or site.places.results or "results").absolute()),
        staging=str(Path(staging).absolute()) if staging else "",
        resume_from=str(Path(args.resume_from).absolute()) if args.resume_from else "",
    )
    specs = [first, *(first.with_seed(seed) for seed in seeds[1:])]
    if first.resume_from:
        for spec in specs:
            require_resumable_from(spec)
    return specs


def require_resumable_from(spec: RunSpec) -> None:
    """Refuse to start from the checkpoint of a run that trains something else, or has nothing left to train."""
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
    begins = not (spec.folder / "run.json").exists()  # else it has checkpoints of its own
    done = finished(Path(spec.resume_from))
    if begins and done and done.epochs[-1].epoch_num >= spec.settings.problem.num_epochs:
        raise SpecError(f"--resume-from {spec.resume_from}: that run has trained all its epochs", "start a new run")


def wants_gpus(args: argparse.Namespace) -> bool:
    return bool(parse_overrides(args.assignments).get("execution.device", "auto") != "cpu")


def flag_overrides(args: argparse.Namespace) -> dict[str, Any]:
    """The short forms of `--set execution.…`.

    Raises:
        SpecError: if the precision is still to be found out: what this machine has says nothing of a cluster's nodes.
    """
    overrides: dict[str, Any] = {}
    if args.precision == "auto":
        raise SpecError("--precision auto asks this machine, and the run is for others", "name a precision")
    if args.precision:
        overrides["execution.precision"] = args.precision
    if args.deterministic:
        overrides["execution.deterministic"] = True
    if args.stop_at_target:
        overrides["execution.stop_at_target"] = True
    return overrides


def data_place(args: argparse.Namespace, site: Site) -> str:
    if args.data == SYNTHETIC:
        return SYNTHETIC
    name = find_workload(args.workload).name
    return str(Path(args.data or site.data_folder(name, args.problem) or default_data(name, args.problem)).absolute())


def require_data(spec: RunSpec) -> None:
    if not spec.is_synthetic and not Path(spec.data).is_dir():
        raise DataError(
            f"no data directory {spec.data}",
            f"run `hpcai500 data prepare {spec.workload.name} --problem {spec.problem}`, or give --data",
        )


def run_once(spec: RunSpec, start: Callable[[RunSpec], None], *, resume: bool, quiet: bool, debug: bool) -> Result:
    """Train one seed, or keep what an earlier run of the same experiment and seed achieved."""

    def say(line: str) -> None:
        if not quiet:
            print(line, flush=True)

    kept = finished(spec.folder)
    if kept:
        say(f"seed {spec.seed}: done already, kept: {spec.folder}")
        return kept
    try:
        spec.write()
    except OccupiedError:
        if not (resume and same_run(spec)):
            raise
        earlier = read_spec(spec.folder / "run.json")
    else:
        earlier = spec
    if earlier.launcher != spec.launcher:
        raise SpecError(
            f"{spec.folder} was started by {earlier.launcher}, not by {spec.launcher}",
            f"go on with --launcher {earlier.launcher}, or give another --output",
        )
    say(
        f"seed {spec.seed}: {spec.workload.title}, {spec.problem} problem, {spec.level} level, "
        f"{counted(spec.world_size, 'rank')}, {spec.settings.execution.precision}: {spec.folder}"
    )
    try:
        start(spec)
    except HpcAi500Error:
        if debug:
            print((spec.folder / "logs" / "stderr.log").read_text(errors="replace"))
        raise
    finally:
        result = write_result(spec.folder)
    say(summary_line(result))
    return result


def same_run(spec: RunSpec) -> bool:
    """Whether `spec`'s folder holds an earlier start of the same run."""
    path = spec.folder / "run.json"
    return path.exists() and read_run(path).experiment_digest == spec.experiment_digest


def finished(folder: Path) -> Result | None:
    path = folder / "result.json"
    if not path.exists():
        return None
    result = read_result(path)
    return result if result.status == "success" else None


def summary_line(result: Result) -> str:
    if not (result.score and result.flops and result.time):
        return f"seed {result.identity.seed}: {result.status}"
    score = result.score
    reached = "target not reached"
    if score.epochs_to_quality:
        reached = f"target in {score.epochs_to_quality} epochs, {score.time_to_quality_sec:.1f} s"
    unranked = f"; never ranked: {', '.join(result.unranked)}" if result.unranked else ""
    return (
        f"seed {result.identity.seed}: {score.metric} {score.achieved_quality:.4f} "
        f"(target {score.target_quality:g}), VFLOPS {si(score.vflops)}, FLOPS {si(result.flops.flops)}, "
        f"{result.time.total_sec:.1f} s, {reached}{unranked}"
    )
