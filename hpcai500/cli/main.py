"""The entry point: the command line is parsed, the command is run, and failures become exit codes."""

import errno
import sys
import traceback
from collections.abc import Sequence

from hpcai500 import __version__
from hpcai500.cli import (
    cancel_command,
    check_command,
    compare_command,
    data_command,
    ingest_command,
    list_command,
    logs_command,
    micro_command,
    package_command,
    predict_command,
    rank_command,
    render_command,
    repeatability_command,
    roofline_command,
    run_command,
    show_command,
    site_command,
    status_command,
    submit_command,
    validate_command,
    verify_command,
)
from hpcai500.cli.options import Parser
from hpcai500.errors import HpcAi500Error, InputError
from hpcai500.text import one_line

COMMANDS = (
    list_command, data_command, run_command, render_command, submit_command, status_command, logs_command,
    cancel_command, site_command, ingest_command, rank_command, check_command, compare_command, package_command,
    verify_command, predict_command, repeatability_command, show_command, micro_command, roofline_command,
    validate_command,
)  # fmt: skip
"""In the order of `hpcai500 --help`."""


def build_parser() -> Parser:
    parser = Parser(
        prog="hpcai500",
        description="Benchmark HPC AI systems by Valid FLOPS: train to quality, repeat over seeds, rank.",
    )
    parser.add_argument("--version", action="version", version=f"hpcai500 {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add_parser(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    try:
        args = build_parser().parse_args(arguments)
        return int(args.handler(args))
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
            too_long = InputError(f"{error.filename}: {error.strerror}", "give a shorter name")
            return _fail(too_long, too_long.exit_code, debug)
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
