"""The formats of a ranking. A new one is a module with a `render`, and its line here."""

from hpcai500.report.formats import Format

_HERE = "hpcai500.report.ranking"

FORMATS = (
    Format("table", f"{_HERE}.terminal", (".txt", "")),
    Format("md", f"{_HERE}.markdown", (".md",)),
    Format("csv", f"{_HERE}.csv_table", (".csv",)),
    Format("json", f"{_HERE}.json_document", (".json",), is_detailed=True),
    Format("html", f"{_HERE}.page", (".html", ".htm"), is_detailed=True),
)
