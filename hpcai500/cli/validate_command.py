"""`hpcai500 validate`: is every node as fast and as healthy as it should be?"""

import argparse
import os
import sys
from pathlib import Path

from hpcai500.cli.options import Commands, Parser, add_command, add_site_values, site_of
from hpcai500.errors import InputError, SpecError


def add_parser(commands: Commands) -> None:
    summary = "is every node of a partition as fast and as healthy as it should be?"
    parser = add_command(commands, "validate", main, summary)
    parser.add_argument("--site", help="a profile's name, or a path to your own .toml (default: only this machine)")
    parser.add_argument("--partition", default="", help="of the site's cluster (default: the profile's)")
    parser.add_argument("--nodes", metavar="N|LIST|all", help="how many, or which, as Slurm has it (default: all)")
    parser.add_argument(
        "--level", type=int, default=1, choices=(1, 2, 3),
        help="1: a minute (default); 2: ten minutes; 3: with training",
    )  # fmt: skip
    parser.add_argument("--stages", metavar="LIST", help="e.g. inventory,health (default: the level's)")
    parser.add_argument("--per-node", action="store_true", help="one job on each idle node, for a busy partition")
    _add_report(parser)
    parser.add_argument(
        "--timeout-sec", type=float, metavar="SEC",
        help="limit for the whole command, the queue included (default: 1800; level 2: 3600; 3: 10800)",
    )  # fmt: skip
    parser.add_argument(
        "--step-timeout-sec", type=float, metavar="SEC",
        help="after it the others continue without a node that hangs (default: 120; level 2: 300; 3: 900)",
    )  # fmt: skip
    add_site_values(parser)


def _add_report(parser: Parser) -> None:
    parser.add_argument("--output", default="validation", metavar="DIR", help="default: validation")
    parser.add_argument("--baseline", metavar="FILE", help="an earlier run's figures, to compare this one with")
    parser.add_argument("--any-baseline", action="store_true", help="even one of another system or partition")
    parser.add_argument("--save-baseline", metavar="FILE", help="keep this run's figures as a baseline")
    parser.add_argument("--expected", metavar="FILE", help="the site's expected values, as TOML")
    parser.add_argument("--format", choices=("text", "json", "junit", "html"), help="of the report (default: text)")
    parser.add_argument("--report", metavar="FOLDER", help="judge an earlier validation's folder again; runs nothing")


def main(args: argparse.Namespace) -> int:
    from hpcai500.files import write_atomic
    from hpcai500.report.validation.render import render
    from hpcai500.validate.judge.baseline import save_baseline
    from hpcai500.validate.judge.verdict import judge

    _require_usable(args)
    folder = _measured(args) if args.report is None else Path(args.report)
    report = judge(
        folder, baseline=_path(args.baseline), expected=_path(args.expected), any_baseline=args.any_baseline
    )
    if args.report is None:
        for name in ("json", "html"):
            write_atomic(folder / f"report.{name}", render(report, name) + "\n")
        _say(f"{folder}: report.html and report.json")
    if args.save_baseline:
        left_out = save_baseline(report, Path(args.save_baseline))
        without = f" without {', '.join(left_out)}, which failed" if left_out else ""
        _say(f"baseline {args.save_baseline}{without}")
    try:
        print(render(report, args.format or ("json" if args.json else "text")), flush=True)
    except BrokenPipeError:  # the reader went away; the exit code is still the verdict's
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return report.exit_code


def _measured(args: argparse.Namespace) -> Path:
    """The folder of a new validation; a baseline that it cannot be compared with is refused before it exists."""
    from hpcai500.validate.conduct.validation import conduct, plan_validation, validation_request
    from hpcai500.validate.judge.baseline import read_baseline

    request = validation_request(
        level=args.level,
        stages=args.stages,
        per_node=args.per_node,
        site=site_of(args.site, args.slurm) if args.site else None,
        site_name=args.site or "",
        partition=args.partition,
        nodes=args.nodes or "",
        timeout_sec=args.timeout_sec,
        step_timeout_sec=args.step_timeout_sec,
    )
    validation = plan_validation(request, os.environ)
    if args.baseline:
        read_baseline(Path(args.baseline), validation.plan, any_baseline=args.any_baseline)
    return conduct(validation, Path(args.output), _say)


def _require_usable(args: argparse.Namespace) -> None:
    """Check what would otherwise fail only after the measurements.

    Raises:
        SpecError: for a time that is not above zero, or an empty path.
        InputError: for files that cannot be read, or a baseline that cannot be written.
    """
    from hpcai500.validate.judge.baseline import parse_baseline
    from hpcai500.validate.judge.expectations import read_site_values

    for option, seconds in (("--timeout-sec", args.timeout_sec), ("--step-timeout-sec", args.step_timeout_sec)):
        if seconds is not None and not seconds > 0:
            raise SpecError(f"{option} {seconds:g}: must be above 0", "give more seconds, or leave it out")
    for option in ("report", "baseline", "expected", "save_baseline"):
        if getattr(args, option) == "":
            raise SpecError(f"--{option.replace('_', '-')}: empty", "name a path, or leave it out")
    if args.expected:
        read_site_values(Path(args.expected))
    if args.baseline:
        parse_baseline(Path(args.baseline))
    folder = Path(args.save_baseline or "baseline.json").parent
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        raise InputError(
            f"--save-baseline {args.save_baseline}: {folder} is not a folder that you may write to", "make it first"
        )


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None
