"""Writes the tables in docs/ that are made from the code anew: `python tools/tables.py`.

Each is between two marks, `<!-- NAME: made by tools/tables.py -->` and `<!-- end of NAME -->`.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from hpcai500.score.rules.catalogue import RULES
from hpcai500.validate.judge.findings import Kind
from hpcai500.validate.judge.remedies import BY_METRIC, MANY_LINKS, NODE_LINKS

DOCS = Path(__file__).parents[1] / "docs"


def rules() -> Iterator[str]:
    yield "| rule | what must hold | source |"
    yield "|---|---|---|"
    yield from (f"| {number} | {rule.sentence} | {rule.source} |" for number, rule in RULES.items())


def findings() -> Iterator[str]:
    yield "| `kind` | severity | what it usually means | what to do |"
    yield "|---|---|---|---|"
    for kind in Kind:
        remedy = kind.remedy.replace("|", "\\|") or "see below"
        yield f"| `{kind}` | {', '.join(kind.severities)} | {kind.meaning} | {remedy} |"


def remedies() -> Iterator[str]:
    yield "| slow metric | what to do |"
    yield "|---|---|"
    rows = [("`links`, one node", NODE_LINKS), ("`links`, many nodes", MANY_LINKS)]
    rows += [(f"`{pattern}`", text) for pattern, text in BY_METRIC]
    for metric, text in rows:
        escaped = text.replace("|", "\\|")
        yield f"| {metric} | {escaped} |"


TABLES: dict[str, tuple[str, Callable[[], Iterator[str]]]] = {
    "rules": ("levels-and-rules.md", rules),
    "findings": ("validation.md", findings),
    "remedies": ("validation.md", remedies),
}
"""Name of a table to its document and its lines."""


def with_table(name: str, text: str) -> str:
    """The document `text` with the table `name` made anew.

    Raises:
        ValueError: if a mark is missing.
    """
    start, end = f"<!-- {name}: made by tools/tables.py -->\n", f"<!-- end of {name} -->"
    before, rest = text.split(start, 1)
    _, after = rest.split(end, 1)
    made = "".join(f"{line}\n" for line in TABLES[name][1]())
    return f"{before}{start}{made}{end}{after}"


if __name__ == "__main__":
    for name, (document, _) in TABLES.items():
        path = DOCS / document
        path.write_text(with_table(name, path.read_text(encoding="utf-8")), encoding="utf-8")
