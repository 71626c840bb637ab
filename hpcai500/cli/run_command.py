"""`hpcai500 run`: resolve, train, and derive the result, once for each seed."""

import argparse
import platform
import re
from pathlib import Path
from typing import Any

from hpcai500.cli.output import default_data, print_json
from hpcai500.errors import DataError, HpcAi500Error
from hpcai500.launch.local import run_local
from hpcai500.report.tables import si
from hpcai500.score.result import Result, read_result, write_result
from hpcai500.spec.levels import Level
from hpcai500.spec.run import SYNTHETIC, RunSpec, parse_overrides, parse_seeds, resolve
from hpcai500.spec.workload import find_workload
from hpcai500.system.devices import num_gpus


def main(args: argparse.Namespace) -> int:
    specs = [resolve_seed(args, seed) for seed in parse_seeds(args.seeds)]
    require_data(specs[0])
    results = [run_once(spec, quiet=args.json, debug=args.debug) for spec in specs]
    if args.json:
        print_json([result.model_dump(mode="json") for result in results])
    return 0


def resolve_seed(args: argparse.Namespace, seed: int) -> RunSpec:
    overrides = parse_overrides(args.assignments) | flag_overrides(args)
    device = overrides.get("execution.device", "auto")
    return resolve(
        args.workload,
        problem=args.problem,
        level=Level(args.level),
        seed=seed,
        overrides=overrides,
        unranked=args.unranked,
        backend=args.backend,
        launcher=args.launcher,
        nodes=args.nodes,
        procs_per_node=args.procs_per_node
        if args.procs_per_node is not None
        else max(1, num_gpus() if device != "cpu" else 1),
        system=args.system or host_name(),
        data=data_place(args),
        output=str(Path(args.output).absolute()),
        staging=str(Path(args.staging).absolute()) if args.staging else "",
    )


def flag_overrides(args: argparse.Namespace) -> dict[str, Any]:
    """The short forms of `--set execution.…`."""
    overrides: dict[str, Any] = {}
    if args.precision:
        overrides["execution.precision"] = args.precision
    if args.deterministic:
        overrides["execution.deterministic"] = True
    if args.stop_at_target:
        overrides["execution.stop_at_target"] = True
    return overrides


def data_place(args: argparse.Namespace) -> str:
    if args.data == SYNTHETIC:
        return SYNTHETIC
    return str(Path(args.data or default_data(find_workload(args.workload).name, args.problem)).absolute())


def host_name() -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "-", platform.node().split(".")[0]).lstrip("-._") or "unnamed"


def require_data(spec: RunSpec) -> None:
    if not spec.is_synthetic and not Path(spec.data).is_dir():
        raise DataError(
            f"no data directory {spec.data}",
            f"run `hpcai500 data prepare {spec.workload.name} --problem {spec.problem}`, or give --data",
        )


def run_once(spec: RunSpec, *, quiet: bool, debug: bool) -> Result:
    """Train one seed, or keep what an earlier run of the same experiment and seed achieved."""

    def say(line: str) -> None:
        if not quiet:
            print(line, flush=True)

    kept = finished(spec)
    if kept:
        say(f"seed {spec.seed}: done already, kept: {spec.folder}")
        return kept
    spec.write()
    say(
        f"seed {spec.seed}: {spec.workload.title}, {spec.problem} problem, {spec.level} level, "
        f"{spec.world_size} ranks, {spec.settings.execution.precision}: {spec.folder}"
    )
    try:
        run_local(spec, quiet=quiet)
    except HpcAi500Error:
        if debug:
            print((spec.folder / "logs" / "stderr.log").read_text(errors="replace"))
        raise
    finally:
        result = write_result(spec.folder)
    say(summary_line(result))
    return result


def finished(spec: RunSpec) -> Result | None:
    path = spec.folder / "result.json"
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
