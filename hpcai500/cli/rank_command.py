"""`hpcai500 rank`: results, or archives of them, as a ranking in one of several formats."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from hpcai500.cli.options import Commands, add_command, add_results
from hpcai500.cli.output import write_named
from hpcai500.errors import InputError
from hpcai500.report.formats import Format, by_ending, by_name, names
from hpcai500.report.ranking.formats import FORMATS
from hpcai500.score.ranking.metrics import METRICS
from hpcai500.score.record.limits import MOST_EXPONENT

if TYPE_CHECKING:
    from hpcai500.exchange.archives import Opened
    from hpcai500.score.ranking.document import RankingDocument


def add_parser(commands: Commands) -> None:
    parser = add_command(commands, "rank", main, "rank results by Valid FLOPS")
    add_results(
        parser,
        "a run's folder, a folder of runs, an archive, a published list (CSV), "
        "or, on its own, a ranking file that `rank --json` wrote",
    )
    parser.add_argument(
        "--by",
        choices=tuple(METRICS),
        metavar="FIGURE",
        help=f"what to rank by: {', '.join(METRICS)} (default: vflops)",
    )
    parser.add_argument("--format", choices=names(FORMATS), help="default: a table")
    parser.add_argument("--output", metavar="FILE", help="write there; its ending decides the format: ranking.html")
    parser.add_argument(
        "--exponent", metavar="N[,N]|A..B", help="score with other penalty exponents; a range shows how ranks move"
    )


def main(args: argparse.Namespace) -> int:
    from hpcai500.exchange.archives import opened
    from hpcai500.score.ranking.collection import without_garbage_collection
    from hpcai500.score.ranking.ranking_file import ranking_in

    style = _format(args)
    with without_garbage_collection():
        document = ranking_in([Path(path) for path in args.paths])
        if document is None:
            with opened(args.paths, unverified=args.unverified) as found:
                document = _ranked(args, found, is_detailed=style.is_detailed)
        else:
            _refuse_options_of_results(args)
        text = style.render(document, is_narrow=not args.output and sys.stdout.isatty())
    if args.output:
        write_named(args.output, text + "\n")
    else:
        print(text)
    return 0


def _refuse_options_of_results(args: argparse.Namespace) -> None:
    """Refuse options that a ranking file cannot follow."""
    if args.exponent or args.by:
        option = "--exponent" if args.exponent else "--by"
        raise InputError(f"{option} with a ranking file, which has its order", "rank the results instead")
    if args.unverified:
        raise InputError("--unverified with a ranking file, which is no archive", "leave it out")


def _format(args: argparse.Namespace) -> Format:
    """The format asked for, else the one of the output's ending, else a table.

    Raises:
        InputError: if the options, or an option and a known ending, name different formats.
    """
    if not args.json and not args.format:
        return by_ending(FORMATS, args.output or "")
    name = "json" if args.json else args.format
    if args.format not in (None, name):
        raise InputError(f"--json and --format {args.format}", "give one of them")
    suffix = Path(args.output or "").suffix.lower()
    named = next((found.name for found in FORMATS if suffix and suffix in found.endings), name)
    if named != name:
        option = "--json" if args.json else f"--format {name}"
        raise InputError(f"{option} and --output {args.output}, which ends as {named}", "give one of them")
    return by_name(FORMATS, name)


def _ranked(args: argparse.Namespace, found: Opened, *, is_detailed: bool) -> RankingDocument:
    from hpcai500.score.ranking.collection import collect
    from hpcai500.score.ranking.detail import with_details
    from hpcai500.score.ranking.document import ranking_document
    from hpcai500.score.ranking.published import rank_published
    from hpcai500.score.ranking.ranking import rank, with_compliance

    exponents, moved = parse_exponents(args.exponent)
    collected = collect(found.sources)
    lists = [
        ranked
        for exponent in exponents
        for ranked in rank(
            collected.runs, exponent, by=args.by or "vflops", diverged=collected.diverged, exponents=moved
        )
    ]
    published = [
        rank_published(path, exponent, exponents=moved) for path in collected.published for exponent in exponents
    ]
    lists = with_compliance(lists, collected.runs)
    if is_detailed:
        lists = with_details(lists, collected.runs)
    return ranking_document(lists, published, [*collected.not_ranked, *found.refused])


def parse_exponents(text: str | None) -> tuple[list[int | None], tuple[int, ...]]:
    """`5,10`: a list scored with each. `1..20`: each list's own, and how its order moves from 1 to 20."""
    if text is None:
        return [None], ()
    hint = f"write e.g. 5, or 5,10, or 1..20; at most {MOST_EXPONENT}"
    if match := re.fullmatch(r"(\d{1,3})\.\.(\d{1,3})", text):
        low, high = int(match[1]), int(match[2])
        if not 1 <= low <= high <= MOST_EXPONENT:
            raise InputError(f"--exponent {text}: no range of positive whole numbers", hint)
        return [None], tuple(range(low, high + 1))
    parts = [part.strip() for part in text.split(",")]
    if not all(re.fullmatch(r"\d{1,3}", part) and 1 <= int(part) <= MOST_EXPONENT for part in parts):
        raise InputError(f"--exponent {text}: not positive whole numbers", hint)
    return list(dict.fromkeys(int(part) for part in parts)), ()
