"""How commands print: JSON for machines, and files that the user named."""

import json
import sys
from pathlib import Path
from typing import Any


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, allow_nan=False))


def write_named(path: str, text: str) -> None:
    """Write the file that an option named, and confirm it on stderr."""
    from hpcai500.files import write_atomic

    write_atomic(Path(path), text)
    print(f"wrote {path}", file=sys.stderr)
