"""The command line: arguments here, one module a command, imported when it is asked for."""

import argparse
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

from hpcai500 import __version__
from hpcai500.errors import HpcAi500Error, SpecError


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are our errors: one line."""

    def error(self, message: str) -> NoReturn:
        raise SpecError(message, f"see `{self.prog} --help`")


def build_parser() -> Parser:
    parser = Parser(
        prog="hpcai500",
        description="Benchmark HPC AI systems by Valid FLOPS: train to quality, repeat over seeds, rank.",
    )
    parser.add_argument("--version", action="version", version=f"hpcai500 {__version__}")
    shared = Parser(add_help=False)
    shared.add_argument("--json", action="store_true", help="print JSON for machines")
    shared.add_argument("--debug", action="store_true", help="show tracebacks")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    commands.add_parser("list", parents=[shared], help="workloads, problems, levels, backends, and what is missing")

    data = commands.add_parser("data", parents=[shared], help="prepare, synthesize, verify or show a data set")
    data.add_argument("action", choices=("prepare", "synthesize", "verify", "show"))
    _add_problem(data)
    data.add_argument("sample", nargs="?", type=int, help="of `show`: its number in the evaluation set, from 0")
    data.add_argument("--predictions", metavar="RUN", help="of `show`: a run's folder, to draw its predictions")
    data.add_argument("--channels", default="", metavar="LIST", help="of `show`: e.g. TMQ,PSL")
    data.add_argument("--image", default="sample.png", metavar="FILE", help="of `show`: what to write")
    data.add_argument("--source", metavar="DIR", help="of `prepare`: the published files")
    data.add_argument("--samples", type=int, metavar="N", help="of `synthesize`: frames a year (default: its own)")
    data.add_argument("--seed", type=int, default=0, help="of `synthesize`")

    run = commands.add_parser("run", parents=[shared], help="train here, once for each seed")
    _add_problem(run)
    run.add_argument("--level", default="free", choices=("hardware", "system", "free"))
    run.add_argument("--backend", default="torch", choices=("torch",))
    run.add_argument("--launcher", default="local", choices=("local",))
    run.add_argument("--nodes", type=int, default=1)
    run.add_argument("--procs-per-node", type=int, help="ranks (default: one a GPU, or one on a CPU)")
    seeds = run.add_mutually_exclusive_group()
    seeds.add_argument("--seed", dest="seeds", metavar="N", default="0", help="one run (default: 0)")
    seeds.add_argument("--seeds", metavar="LIST", help="one run a seed, e.g. 0-4,7")
    run.add_argument("--precision", choices=("fp32", "bf16", "fp16"))
    run.add_argument("--deterministic", action="store_true", help="bit-identical for one seed and size")
    run.add_argument("--stop-at-target", action="store_true", help="end at the first quality reached")
    run.add_argument("--unranked", action="store_true", help="a trial: any key may be set; never ranked")
    run.add_argument("--system", help="this machine's name in rankings (default: its host name)")
    run.add_argument("--staging", default="", metavar="DIR", help="node-local folder to copy the data to first")
    run.add_argument("--output", default="results", metavar="DIR", help="results directory")

    rank = commands.add_parser("rank", parents=[shared], help="rank results by Valid FLOPS")
    rank.add_argument("paths", nargs="*", default=["results"], metavar="PATH")
    rank.add_argument("--format", default="table", choices=("table", "md", "csv", "json"))
    rank.add_argument("--exponent", metavar="N[,N]", help="score with other penalty exponents")

    repeatability = commands.add_parser("repeatability", parents=[shared], help="statistics across seeds")
    repeatability.add_argument("paths", nargs="*", default=["results"], metavar="PATH")
    return parser


def _add_problem(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("workload", help="a shipped workload's name, or a path to your own")
    parser.add_argument("--problem", default="full", help="full (default) or mini")
    parser.add_argument(
        "--set", dest="assignments", metavar="TABLE.KEY=VALUE", action="append", default=[],
        help="override one value of workload.toml; may stand several times",
    )  # fmt: skip
    parser.add_argument("--data", metavar="DIR", help="data set (default: data/WORKLOAD/PROBLEM), or `synthetic`")


def main(argv: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    try:
        args = build_parser().parse_args(arguments)
        module = import_module(f"hpcai500.cli.{args.command}_command")
        return int(module.main(args))
    except HpcAi500Error as error:
        return _fail(error, error.exit_code, debug)
    except BrokenPipeError:  # the reader of our output went away, as `head` does
        sys.stderr.close()
        return 0
    except KeyboardInterrupt:
        print("hpcai500: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        if not debug:
            error = HpcAi500Error(f"{type(error).__name__}: {error}", "this is a bug: --debug shows where")
        return _fail(error, HpcAi500Error.exit_code, debug)


def _fail(error: Exception, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exception(error)
    line = " ".join(str(error).split())
    print(f"hpcai500: error: {line}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
