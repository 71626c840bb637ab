"""`hpcai500 ingest`: a foreign program's log as a run that is checked and ranked like any other."""

import argparse
from pathlib import Path

from hpcai500.cli.options import Commands, add_command
from hpcai500.cli.output import print_json
from hpcai500.errors import InputError


def add_parser(commands: Commands) -> None:
    parser = add_command(commands, "ingest", main, "take in the log of a program of your own")
    parser.add_argument("log", metavar="LOG", help="its MLLOG lines; with --run the file to write them to")
    parser.add_argument("--workload", required=True, help="the workload whose problem it trained")
    parser.add_argument("--problem", default="full", help="full (default) or mini")
    parser.add_argument("--system", help="the machine's name, as the log has it (default: the log's)")
    parser.add_argument("--seed", type=int, metavar="N", help="as the log has it (default: the log's)")
    parser.add_argument("--nodes", type=int, default=1, metavar="N", help="nodes that it ran on (default: 1)")
    parser.add_argument("--source", metavar="DIR", help="the program's source, to disclose at free level")
    parser.add_argument("--output", default="results", metavar="DIR", help="results directory (default: results)")
    parser.add_argument(
        "--run", nargs=argparse.REMAINDER, metavar="PROGRAM",
        help="start the program, with all arguments that follow, and time it; must be the last option",
    )  # fmt: skip


def main(args: argparse.Namespace) -> int:
    from hpcai500.exchange.ingest import ForeignLog, ingest
    from hpcai500.launch.program import run_program
    from hpcai500.report.summary import summary_line

    path = Path(args.log)
    argv = tuple(args.run[1:] if args.run and args.run[0] == "--" else args.run or ())
    if args.run is not None and not argv:
        raise InputError("--run: no program", "write it last: hpcai500 ingest LOG ... --run ./program ARGUMENTS")
    watched = run_program(argv, path, quiet=args.json) if argv else None
    log = ForeignLog(
        path=path,
        workload=args.workload,
        problem=args.problem,
        system=args.system,
        seed=args.seed,
        nodes=args.nodes,
        source=Path(args.source).absolute() if args.source else None,
        argv=argv,
        watched=watched,
    )
    folder, result, is_new = ingest(log, Path(args.output).absolute())
    state = "ingested" if is_new else "ingested already, kept"
    if args.json:
        print_json({"folder": str(folder), "state": state, "result": result.model_dump(mode="json")})
    else:
        print(f"{summary_line(result)}\n{state}: {folder}")
    return 0
