"""Tables in docs/ that are made from the code."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "tools"))
import tables


@pytest.mark.parametrize("name", tables.TABLES)
def test_a_table_in_the_docs_is_that_of_the_code(name):
    text = (tables.DOCS / tables.TABLES[name][0]).read_text(encoding="utf-8")
    assert tables.with_table(name, text) == text, "run `python tools/tables.py`"


def test_a_changed_row_changes_the_document(monkeypatch):
    document = tables.TABLES["rules"][0]
    text = (tables.DOCS / document).read_text(encoding="utf-8")
    monkeypatch.setitem(tables.TABLES, "rules", (document, lambda: iter(["| another |"])))
    changed = tables.with_table("rules", text)
    assert "| another |" in changed
    assert "| 4.2 |" not in changed
    assert changed.split("<!-- end of rules -->")[1] == text.split("<!-- end of rules -->")[1]


def test_a_document_without_marks_is_refused():
    with pytest.raises(ValueError, match="not enough values"):
        tables.with_table("rules", "no table here")
