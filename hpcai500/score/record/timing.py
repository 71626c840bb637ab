"""timing.json: when the lines of a foreign program arrived, by the clock of the machine that ran it."""

from pathlib import Path
from typing import Literal

from hpcai500.files import read_json
from hpcai500.spec.models import Frozen, parse

TIMING = "timing.json"


class Timing(Frozen):
    """Milliseconds since 1970, by the clock of the machine on which `ingest --run` ran."""

    schema_version: Literal[1] = 1
    started_ms: float
    ended_ms: float
    run_start_ms: float | None = None
    """When the line `run_start` arrived."""
    run_stop_ms: float | None = None


def read_timing(folder: Path) -> Timing | None:
    """The timing of a run that was timed from outside; None for any other."""
    path = folder / TIMING
    return parse(Timing, read_json(path), path) if path.exists() else None
