"""`hpcai500 show`: one run as text, with its curves."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from hpcai500.cli.options import Commands, add_command
from hpcai500.cli.output import print_json

if TYPE_CHECKING:
    from hpcai500.score.record.result import Result
    from hpcai500.score.record.source import Source


def add_parser(commands: Commands) -> None:
    parser = add_command(commands, "show", main, "one run as text, with its curves")
    parser.add_argument("paths", nargs="+", metavar="RUN", help="a run's folder, or its result.json")


def main(args: argparse.Namespace) -> int:
    from hpcai500.exchange.archives import opened
    from hpcai500.exchange.results import read_source, result_sources

    with opened(args.paths, strict=True) as found:
        sources = [run for source in found.sources for run in result_sources(source)]
        results = [read_source(source) for source in sources]
    if args.json:
        print_json([result.model_dump(mode="json") for result in results])
    else:
        print("\n\n".join(_text(result, source) for result, source in zip(results, sources, strict=True)))
    return 0


def _text(result: Result, source: Source) -> str:
    from hpcai500.exchange.results import malformed
    from hpcai500.report.run import run_text
    from hpcai500.score.record.reading import MALFORMED

    try:
        return run_text(result)
    except MALFORMED as error:  # finite figures whose sums are not
        raise malformed(source.name, error) from error
