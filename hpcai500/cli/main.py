"""The command line: arguments here, one module a command, imported when it is asked for."""

import argparse
import errno
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

from hpcai500 import __version__
from hpcai500.errors import HpcAi500Error, InputError, SpecError
from hpcai500.launch.software import BACKENDS
from hpcai500.report.formats import names
from hpcai500.report.ranking.formats import FORMATS
from hpcai500.score.ranking.metrics import METRICS
from hpcai500.text import one_line


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

    run = commands.add_parser("run", parents=[shared], help="train here, or in the Slurm allocation around us")
    _add_experiment(run)
    run.add_argument("--nodes", type=int, metavar="N", help="default: the allocation's, or 1")
    run.add_argument(
        "--launcher",
        metavar="NAME",
        help="one that `hpcai500 list` names (default: the site's, srun, inside a Slurm allocation; "
        "else local, which is torchrun, or horovodrun for Horovod)",
    )
    run.add_argument("--site", help="a site profile, for srun's options and where things lie")
    run.add_argument("--resume", action="store_true", help="go on with an interrupted run from its newest checkpoint")

    render = commands.add_parser("render", parents=[shared], help="print the job script of runs; submits nothing")
    _add_experiment(render)
    _add_site(render)

    submit = commands.add_parser("submit", parents=[shared], help="hand the runs that are missing to Slurm")
    _add_experiment(submit)
    _add_site(submit)

    status = commands.add_parser("status", parents=[shared], help="what is queued, running, done, failed, and why")
    _add_runs(status)
    status.add_argument(
        "--watch", type=float, nargs="?", const=10.0, metavar="SEC", help="look again until nothing is under way"
    )

    logs = commands.add_parser("logs", parents=[shared], help="what the ranks of runs printed")
    _add_runs(logs)
    logs.add_argument("--lines", type=int, default=40, metavar="N", help="of each file, from its end (default: 40)")

    cancel = commands.add_parser("cancel", parents=[shared], help="end the jobs of runs")
    cancel.add_argument("paths", nargs="+", metavar="RUN", help="a run's folder, or a folder of runs")

    site = commands.add_parser(
        "site", parents=[shared], help="check a site's profile on its cluster; show it; list all"
    )
    site.add_argument("action", choices=("check", "show", "list"))
    site.add_argument("site", nargs="?", help="a profile's name, or a path to your own .toml")
    _add_slurm(site)
    site.add_argument("--nodes", type=int, metavar="N", help="of `check`: how many (default: the profile's)")
    site.add_argument("--no-job", action="store_true", help="of `check`: start nothing; leaves paths unchecked")

    ingest = commands.add_parser("ingest", parents=[shared], help="take in the log of a program of your own")
    ingest.add_argument("log", metavar="LOG", help="its MLLOG lines; with --run the file to write them to")
    ingest.add_argument("--workload", required=True, help="the workload whose problem it trained")
    ingest.add_argument("--problem", default="full", help="full (default) or mini")
    ingest.add_argument("--system", help="the machine's name, as the log has it (default: the log's)")
    ingest.add_argument("--seed", type=int, metavar="N", help="as the log has it (default: the log's)")
    ingest.add_argument("--nodes", type=int, default=1, metavar="N", help="nodes that it ran on (default: 1)")
    ingest.add_argument("--source", metavar="DIR", help="the program's source, which free level has disclosed")
    ingest.add_argument("--output", default="results", metavar="DIR", help="results directory (default: results)")
    ingest.add_argument(
        "--run", nargs=argparse.REMAINDER, metavar="PROGRAM",
        help="start the program, with all arguments that follow, and time it; must stand last",
    )  # fmt: skip

    rank = commands.add_parser("rank", parents=[shared], help="rank results by Valid FLOPS")
    rank.add_argument(
        "paths", nargs="*", default=["results"], metavar="PATH", help="results, or what `rank --json` wrote"
    )
    rank.add_argument("--unverified", action="store_true", help="take altered archives too, and mark them")
    rank.add_argument(
        "--by",
        choices=tuple(METRICS),
        help="what to rank by (default: vflops)",
    )
    rank.add_argument("--format", choices=names(FORMATS), help="default: a table")
    rank.add_argument("--output", metavar="FILE", help="write there; its ending decides the format: ranking.html")
    rank.add_argument(
        "--exponent", metavar="N[,N]|A..B", help="score with other penalty exponents; a range shows how ranks move"
    )

    check = commands.add_parser("check", parents=[shared], help="hold results against the rules of their level")
    check.add_argument("paths", nargs="+", metavar="RESULT", help="a run's folder, or a folder of runs")
    check.add_argument("--unverified", action="store_true", help="take altered archives too, and mark them")
    check.add_argument("--reference", metavar="RUN", help="the run whose Layer 5 a hardware-level result must have")

    compare = commands.add_parser("compare", parents=[shared], help="the nine layers of two runs side by side")
    compare.add_argument("left", metavar="A", help="a run's folder")
    compare.add_argument("right", metavar="B", help="another's")
    compare.add_argument("--all", action="store_true", help="show what is equal too")
    compare.add_argument(
        "--level", choices=("hardware", "system", "free"), help="exit with 1 unless the two may be compared at it"
    )

    package = commands.add_parser("package", parents=[shared], help="a result set as one archive")
    package.add_argument("paths", nargs="*", default=["results"], metavar="RESULT", help="a run's folder, or of runs")
    package.add_argument("--output", default="results.zip", metavar="FILE", help="the archive (default: results.zip)")

    verify = commands.add_parser("verify", parents=[shared], help="name every changed file of an archive")
    verify.add_argument("archive", metavar="FILE")

    predict = commands.add_parser("predict", parents=[shared], help="what a system would do at sizes nobody has run")
    predict.add_argument("paths", nargs="+", metavar="RESULT", help="a finished run's folder, or a folder of runs")
    predict.add_argument("--nodes", required=True, metavar="N[,N]", help="e.g. 2,8,64,512,4096")
    predict.add_argument("--procs-per-node", type=int, metavar="N", help="ranks (default: the result's)")
    predict.add_argument(
        "--scaling", default="recipe", choices=("recipe", "weak", "strong"),
        help="weak: a rank's share stays; strong: the batch; recipe (default): weak up to the largest good batch",
    )  # fmt: skip
    predict.add_argument(
        "--network", metavar="FILE", action="append", default=[],
        help="`micro --json` of collectives; one within a node and one between nodes may be given",
    )  # fmt: skip
    predict.add_argument("--bandwidth-gb-s", metavar="X[..Y]", help="of a node's links, each way, in 1e9 bytes/s")
    predict.add_argument("--latency-us", metavar="X[..Y]", help="of a message between nodes (default: 5..20)")
    predict.add_argument("--within-node-gb-s", metavar="X[..Y]", help="between ranks of a node (default: as between)")
    predict.add_argument("--within-node-latency-us", metavar="X[..Y]", help="of such a message")
    predict.add_argument("--plot", metavar="FILE", help="write an SVG with the band of uncertainty")

    repeatability = commands.add_parser("repeatability", parents=[shared], help="statistics across seeds")
    repeatability.add_argument("paths", nargs="*", default=["results"], metavar="PATH")
    repeatability.add_argument("--unverified", action="store_true", help="take altered archives too, and mark them")
    repeatability.add_argument(
        "--reference", metavar="PATH", help="runs that this set may not converge faster than (one-sided test)"
    )

    show = commands.add_parser("show", parents=[shared], help="one run as text, with its curves")
    show.add_argument("paths", nargs="+", metavar="RUN", help="a run's folder, or its result.json")
    micro = commands.add_parser("micro", parents=[shared], help="kernels, memory, storage, collectives on their own")
    _add_micro(micro)
    roofline = commands.add_parser("roofline", parents=[shared], help="what bounds a workload: arithmetic or memory")
    roofline.add_argument("paths", nargs="*", metavar="RESULT", help="runs (default: steps measured here)")
    roofline.add_argument("--workload", action="append", metavar="NAME", help="to measure here (default: shipped)")
    roofline.add_argument("--problem", default="mini", help="of the workloads measured here (default: mini)")
    roofline.add_argument("--precision", choices=("fp32", "bf16", "fp16"), help="of the workloads measured here")
    roofline.add_argument("--device", default="auto", help="cpu, cuda or cuda:N (default: a GPU if there is one)")
    roofline.add_argument("--ceilings", metavar="FILE", help="of `micro --output`, instead of measuring them here")
    roofline.add_argument("--budget-sec", type=float, default=40.0, metavar="SEC", help="default: 40")
    roofline.add_argument("--plot", metavar="FILE", help="write an SVG")
    validate = commands.add_parser(
        "validate", parents=[shared], help="is every node of a partition as fast and as healthy as it should be?"
    )
    _add_validation(validate)
    return parser


def _add_micro(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--only", default="", metavar="LIST",
        help="of kernels, workloads, storage, collectives (default: all but collectives, which need ranks)",
    )  # fmt: skip
    parser.add_argument("--device", default="auto", help="cpu, cuda or cuda:N (default: a GPU if there is one)")
    parser.add_argument("--precisions", default="", metavar="LIST", help="of fp64, fp32, tf32, bf16, fp16")
    parser.add_argument("--budget-sec", type=float, default=60.0, metavar="SEC", help="default: 60")
    parser.add_argument(
        "--workload", action="append", metavar="NAME", help="whose shapes; may stand several times (default: shipped)"
    )
    parser.add_argument("--problem", default="mini", help="of the workloads (default: mini)")
    parser.add_argument("--folder", default=".", metavar="DIR", help="where storage is measured and ranks meet")
    parser.add_argument("--data", default="", metavar="DIR", help="of `storage`: read a prepared data set too")
    parser.add_argument("--backend", default="torch", choices=(*BACKENDS, "mpi"), help="of `collectives`")
    parser.add_argument("--launcher", metavar="NAME", help="of `collectives`; as `run` chooses it")
    parser.add_argument("--nodes", type=int, metavar="N", help="of `collectives` (default: the allocation's, or 1)")
    parser.add_argument("--procs-per-node", type=int, metavar="N", help="of `collectives`")
    parser.add_argument("--sizes", default="", metavar="LIST", help="of `collectives`: bytes, e.g. 8,1048576")
    parser.add_argument("--site", default="", help="of `collectives`: a site profile, for srun's options")
    _add_slurm(parser)
    parser.add_argument("--output", metavar="FILE", help="write what --json prints there")


def _add_validation(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--site", help="a profile's name, or a path to your own .toml (default: this machine alone)")
    parser.add_argument("--partition", default="", help="of the site's cluster (default: the profile's)")
    parser.add_argument("--nodes", metavar="N|LIST|all", help="how many, or which, as Slurm has it (default: all)")
    parser.add_argument(
        "--level", type=int, default=1, choices=(1, 2, 3), help="1: a minute; 2: ten minutes; 3: with training"
    )
    parser.add_argument("--stages", metavar="LIST", help="e.g. inventory,health (default: the level's)")
    parser.add_argument("--per-node", action="store_true", help="one job on each idle node, for a busy partition")
    parser.add_argument("--output", default="validation", metavar="DIR", help="default: validation")
    parser.add_argument("--baseline", metavar="FILE", help="an earlier run's figures, to hold this one against")
    parser.add_argument("--any-baseline", action="store_true", help="even one of another system or partition")
    parser.add_argument("--save-baseline", metavar="FILE", help="keep this run's figures as a baseline")
    parser.add_argument("--expected", metavar="FILE", help="the site's expected values, as TOML")
    parser.add_argument("--format", choices=("text", "json", "junit", "html"), help="of the report (default: text)")
    parser.add_argument("--report", metavar="FOLDER", help="judge an earlier validation's folder again; runs nothing")
    parser.add_argument("--timeout-sec", type=float, metavar="SEC", help="of the whole command, the queue included")
    parser.add_argument(
        "--step-timeout-sec", type=float, metavar="SEC",
        help="after which the others go on without a node that hangs (default: 120; level 2: 300; 3: 900)",
    )  # fmt: skip
    _add_slurm(parser)


def _add_experiment(parser: argparse.ArgumentParser) -> None:
    """What `run`, `render` and `submit` share: which runs, and where their results go."""
    _add_problem(parser)
    parser.add_argument("--level", default="free", choices=("hardware", "system", "free"))
    parser.add_argument("--backend", default="torch", choices=BACKENDS, help="how ranks communicate (default: torch)")
    parser.add_argument("--procs-per-node", type=int, metavar="N", help="ranks (default: one a GPU, or one on a CPU)")
    seeds = parser.add_mutually_exclusive_group()
    seeds.add_argument("--seed", dest="seeds", metavar="N", default="0", help="one run (default: 0)")
    seeds.add_argument("--seeds", metavar="LIST", help="one run a seed, e.g. 0-4,7")
    parser.add_argument(
        "--precision",
        choices=("fp32", "bf16", "fp16", "auto"),
        help="default: the problem's own; auto: of `run` on this machine alone, what its GPU or processor has",
    )
    parser.add_argument("--deterministic", action="store_true", help="bit-identical for one seed and size")
    parser.add_argument("--stop-at-target", action="store_true", help="end at the first quality reached")
    parser.add_argument("--unranked", action="store_true", help="a trial: any key may be set; never ranked")
    parser.add_argument("--system", help="this machine's name in rankings (default: the site's, or the host's)")
    parser.add_argument(
        "--resume-from", default="", metavar="RUN", help="start from another run's newest checkpoint; never ranked"
    )
    parser.add_argument("--staging", default="", metavar="DIR", help="node-local folder to copy the data to first")
    parser.add_argument("--output", metavar="DIR", help="results directory (default: the site's, or results)")


def _add_runs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="*", default=["results"], metavar="RUN", help="a run's folder, or one of runs")


def _add_site(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--site", required=True, help="a profile's name, or a path to your own .toml")
    parser.add_argument("--nodes", metavar="N[,N]", help="one job array for each number (default: the site's)")
    parser.add_argument("--parallel", type=int, metavar="N", help="runs of an array at once (default: the site's)")
    _add_slurm(parser)


def _add_slurm(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--slurm", metavar="KEY=VALUE", action="append", default=[],
        help="replace one value of the site's profile; may stand several times",
    )  # fmt: skip


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
        if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
            long = InputError(f"{error.filename}: {error.strerror}", "give a shorter name")
            return _fail(long, long.exit_code, debug)
        if not debug:
            error = HpcAi500Error(f"{type(error).__name__}: {error}", "this is a bug: --debug shows where")
        return _fail(error, HpcAi500Error.exit_code, debug)


def _fail(error: Exception, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exception(error)
    print(f"hpcai500: error: {one_line(str(error))}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
