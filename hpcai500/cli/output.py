"""What several commands share: where data lies by default, and JSON for machines."""

import json
from pathlib import Path
from typing import Any


def default_data(workload: str, problem: str) -> Path:
    return Path("data") / workload / problem


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, allow_nan=False))
