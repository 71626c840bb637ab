"""Two runs side by side as text: the layers, and the verdict."""

from typing import Any

from tabulate import tabulate

from hpcai500.score.rules.comparison import Comparison
from hpcai500.spec.layers import Layer
from hpcai500.text import printable

_WIDTH = 40


def comparison_text(comparison: Comparison, *, everything: bool) -> str:
    """A table of what differs, or of `everything`; below it the cautions and the verdict."""
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
