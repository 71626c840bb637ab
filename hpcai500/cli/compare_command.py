"""`hpcai500 compare`: the nine layers of two runs side by side, and what may be said of the two."""

import argparse
from pathlib import Path
from typing import Any

from tabulate import tabulate

from hpcai500.cli.output import print_json
from hpcai500.score.comparison import Comparison, compare
from hpcai500.spec.layers import Layer
from hpcai500.spec.levels import Level

_WIDTH = 40


def main(args: argparse.Namespace) -> int:
    comparison = compare(Path(args.left), Path(args.right))
    if args.json:
        print_json(comparison.model_dump(mode="json") | {"verdict": comparison.verdict})
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
    return "\n".join([head, "", table, "", *cautions, comparison.verdict])


def _short(value: Any) -> str:
    text = "-" if value is None else str(value)
    return text if len(text) <= _WIDTH else f"{text[: _WIDTH - 3]}..."
