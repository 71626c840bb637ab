"""Options that several commands share, and what they mean.

Whatever a command runs is imported when it runs, so that `hpcai500 --help` imports no more than argparse.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NoReturn, TypeAlias

from hpcai500.errors import SpecError
from hpcai500.launch.software import BACKENDS

if TYPE_CHECKING:
    from hpcai500.runs.experiment import Experiment
    from hpcai500.spec.run import RunSpec
    from hpcai500.spec.site import Site

_LARGEST = 2**40


class Parser(argparse.ArgumentParser):
    """An argument parser that reports a wrong command line as our error, in one line."""

    def error(self, message: str) -> NoReturn:
        raise SpecError(message, f"see `{self.prog} --help`")


Commands: TypeAlias = "argparse._SubParsersAction[Parser]"
"""What a command adds its parser to."""
Handler: TypeAlias = Callable[[argparse.Namespace], int]
"""Runs a command and returns its exit code."""


def add_command(commands: Commands, name: str, handler: Handler, summary: str) -> Parser:
    """A parser for the command, with the options that every command has."""
    parser = commands.add_parser(name, help=summary, description=summary)
    parser.set_defaults(handler=handler)
    _add_shared(parser)
    return parser


def add_actions(commands: Commands, name: str, summary: str) -> Commands:
    """What the actions of a command add their parsers to, as `data prepare` does by `add_action`."""
    parser = commands.add_parser(name, help=summary, description=summary)
    _add_shared(parser)
    return parser.add_subparsers(dest="action", metavar="ACTION", required=True)


def add_action(actions: Commands, name: str, handler: Handler, summary: str) -> Parser:
    """A parser for one action of a command."""
    parser = actions.add_parser(name, help=summary, description=summary)
    parser.set_defaults(handler=handler)
    _add_shared(parser, default=argparse.SUPPRESS)  # the command's own default stays, `data --json verify` too
    return parser


def _add_shared(parser: Parser, default: bool | str = False) -> None:
    parser.add_argument("--json", action="store_true", default=default, help="print JSON for machines")
    parser.add_argument("--debug", action="store_true", default=default, help="show tracebacks")


def add_problem(parser: Parser, *, may_be_synthetic: bool = True) -> None:
    """Which problem of which workload, and its data."""
    parser.add_argument("workload", help="a shipped workload's name, or a path to your own")
    parser.add_argument("--problem", default="full", help="full (default) or mini")
    parser.add_argument(
        "--set", dest="assignments", metavar="TABLE.KEY=VALUE", action="append", default=[],
        help="override one value of workload.toml; may be given several times",
    )  # fmt: skip
    synthetic = ", or `synthetic`" if may_be_synthetic else ""
    parser.add_argument("--data", metavar="DIR", help=f"data set (default: data/WORKLOAD/PROBLEM){synthetic}")


def add_experiment(parser: Parser) -> None:
    """What `run`, `render` and `submit` share: which runs, and where their results go."""
    add_problem(parser)
    parser.add_argument(
        "--level", default="free", choices=("hardware", "system", "free"),
        help="which layers may differ from the reference (default: free)",
    )  # fmt: skip
    parser.add_argument("--backend", default="torch", choices=BACKENDS, help="how ranks communicate (default: torch)")
    parser.add_argument(
        "--procs-per-node", type=int, metavar="N", help="ranks per node (default: one per GPU, or one on a CPU)"
    )
    seeds = parser.add_mutually_exclusive_group()
    seeds.add_argument("--seed", dest="seeds", metavar="N", default="0", help="one run (default: 0)")
    seeds.add_argument("--seeds", metavar="LIST", help="one run per seed, e.g. 0-4,7")
    parser.add_argument(
        "--precision",
        choices=("fp32", "bf16", "fp16", "auto"),
        help="default: the problem's own; auto, only for `run` on this machine: what its GPU or processor has",
    )
    parser.add_argument("--deterministic", action="store_true", help="bit-identical for one seed and size")
    parser.add_argument("--stop-at-target", action="store_true", help="end when the target quality is first reached")
    parser.add_argument("--unranked", action="store_true", help="a trial: any key may be set; never ranked")
    parser.add_argument("--system", help="this machine's name in rankings (default: the site's, or the host's)")
    parser.add_argument(
        "--resume-from", default="", metavar="RUN", help="start from another run's newest checkpoint; never ranked"
    )
    parser.add_argument("--staging", default="", metavar="DIR", help="node-local folder to copy the data to first")
    parser.add_argument("--output", metavar="DIR", help="results directory (default: the site's, or results)")


def add_jobs(parser: Parser) -> None:
    """What `render` and `submit` share: the experiment, and the jobs that run it."""
    add_experiment(parser)
    parser.add_argument("--site", required=True, help="a profile's name, or a path to your own .toml")
    parser.add_argument("--nodes", metavar="N[,N]", help="one job array per number of nodes (default: the site's)")
    parser.add_argument("--parallel", type=int, metavar="N", help="runs of an array at once (default: the site's)")
    add_site_values(parser)


def add_site_values(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--slurm", metavar="KEY=VALUE", action="append", default=[],
        help="replace one value of the site's profile; may be given several times",
    )  # fmt: skip


def add_runs(parser: Parser) -> None:
    parser.add_argument(
        "paths", nargs="*", default=["results"], metavar="RUN", help="a run's folder, or a folder of runs"
    )


def add_results(
    parser: Parser, what: str = "a run's folder, a folder of runs, or an archive", *, required: bool = False
) -> None:
    """The results that a command reads, and whether it takes altered archives."""
    if required:
        parser.add_argument("paths", nargs="+", metavar="RESULT", help=what)
    else:
        parser.add_argument(
            "paths", nargs="*", default=["results"], metavar="PATH", help=f"{what} (default: results)"
        )
    parser.add_argument("--unverified", action="store_true", help="take altered archives too, and mark them")


def add_device(parser: Parser) -> None:
    parser.add_argument("--device", default="auto", help="cpu, cuda or cuda:N (default: a GPU if there is one)")


def experiment_of(args: argparse.Namespace) -> Experiment:
    """The experiment that the options of `add_experiment` ask for.

    Raises:
        SpecError: for seeds or settings that cannot be parsed.
    """
    from hpcai500.runs.experiment import Experiment
    from hpcai500.spec.levels import Level
    from hpcai500.spec.run import parse_overrides, parse_seeds

    return Experiment(
        workload=args.workload,
        problem=args.problem,
        level=Level(args.level),
        seeds=parse_seeds(args.seeds),
        backend=args.backend,
        procs_per_node=args.procs_per_node,
        settings=parse_overrides(args.assignments),
        precision=args.precision or "",
        deterministic=args.deterministic,
        stop_at_target=args.stop_at_target,
        unranked=args.unranked,
        system=args.system or "",
        data=args.data or "",
        output=args.output or "",
        staging=args.staging,
        resume_from=args.resume_from,
    )


def site_of(name: str | None, assignments: Sequence[str], *, parallel: int | None = None) -> Site:
    """The site's profile, with the values of `--slurm` and `--parallel` in it; an empty one without a name.

    Raises:
        SpecError: for an unknown site, or values that it cannot have.
    """
    from hpcai500.spec.run import parse_overrides
    from hpcai500.spec.site import Site, load_site, with_site_overrides

    for assignment in assignments:
        if "=" not in assignment:
            raise SpecError(f"--slurm {assignment}: no value", "write --slurm key=value")
    site = with_site_overrides(load_site(name) if name else Site(), parse_overrides(assignments))
    return site if parallel is None else with_site_overrides(site, {"slurm.max_parallel": parallel})


def job_runs(args: argparse.Namespace, site: Site) -> list[list[RunSpec]]:
    """The runs that the options of `add_jobs` ask for at `site`, a list per number of nodes."""
    from hpcai500.runs.experiment import resolve_at

    counts = parse_numbers(args.nodes, "--nodes", "a number of nodes", "4, or 1,2,4") if args.nodes else []
    if len(set(counts)) < len(counts):
        raise SpecError(f"--nodes {args.nodes}: a number is given twice", "give each number of nodes once")
    return resolve_at(experiment_of(args), site, counts)


def parse_numbers(text: str, option: str, what: str, example: str, most: int = _LARGEST) -> list[int]:
    """`1,2,4` as whole numbers from 1 to `most`; `what` each of them is, for the message.

    Raises:
        SpecError: for a part that is no such number.
    """
    parts = [part.strip() for part in text.split(",")]
    for part in parts:
        if not (part.isascii() and part.isdigit() and 1 <= int(part) <= most):
            raise SpecError(f"{option} {text}: {part!r} is not {what}", f"write e.g. {example}")
    return [int(part) for part in parts]
