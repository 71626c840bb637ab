"""Writes the table of rules in docs/levels-and-rules.md anew, from the catalogue: `python tools/rules_table.py`."""

from pathlib import Path

from hpcai500.score.rules.catalogue import table

DOCUMENT = Path(__file__).parents[1] / "docs" / "levels-and-rules.md"
_START, _END = "<!-- made by tools/rules_table.py -->", "<!-- end of the table -->"


def with_table(text: str) -> str:
    """The document `text` with the catalogue's table between the two marks.

    Raises:
        ValueError: if a mark is missing.
    """
    before, rest = text.split(_START, 1)
    after = rest.split(_END, 1)[1]
    made = "".join(f"{line}\n" for line in table())
    return f"{before}{_START}\n{made}{_END}{after}"


if __name__ == "__main__":
    DOCUMENT.write_text(with_table(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
