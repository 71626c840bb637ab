"""`hpcai500 compare`: the nine layers of two runs side by side, and what may be said of the two."""

import argparse
import json
from typing import Any

from tabulate import tabulate

from hpcai500.exchange.archives import one_run, opened
from hpcai500.score.rules.comparison import Comparison, compare
from hpcai500.spec.layers import Layer
from hpcai500.spec.levels import Level
from hpcai500.text import printable

_WIDTH = 40


def main(args: argparse.Namespace) -> int:
    with opened([args.left, args.right], strict=True) as found:
        comparison = compare(*(one_run(source) for source in found.sources))
    if args.json:
        record = comparison.model_dump(mode="json") | {"verdict": comparison.verdict}
        print(json.dumps(record, indent=2, allow_nan=False))
    else:
        print(text(comparison, everything=args.all))
    if args.level is None:
        return 0 if comparison.comparable_at else 1
    return 1 if any(found.level is Level(args.level) for found in comparison.obstacles) else 0


def text(comparison: Comparison, *, everything: bool) -> str:
    rows = [
        (row.layer, Layer(row.layer).title, row.key, _short(row.left), _short(row.right))
        for row in comparison.rows
        if row.differs or everything
    ]
    table = tabulate(rows, headers=("layer", "", "key", "A", "B"), disable_numparse=True) if rows else "no difference"
    head = f"A  {comparison.left}\nB  {comparison.right}"
    cautions = [f"caution: {line}" for line in comparison.cautions]
    whole = "\n".join([head, "", table, "", *cautions, comparison.verdict])
    return "\n".join(printable(line) for line in whole.split("\n"))


def _short(value: Any) -> str:
    text = "-" if value is None else printable(str(value))
    return text if len(text) <= _WIDTH else f"{text[: _WIDTH - 3]}..."
