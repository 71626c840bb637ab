"""Published global batch sizes and the quality reached with them: a workload's batch-limits.csv."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import Field

from hpcai500.errors import InputError
from hpcai500.spec.models import Frozen, parse
from hpcai500.spec.workload import shipped_workloads


class BatchLimit(Frozen):
    """One row of the file."""

    problem: str
    optimizer: str
    global_batch_size: int = Field(ge=1)
    quality: float = Field(gt=0, le=1)
    source: str


class Reach(NamedTuple):
    """Quality to expect at a batch size."""

    quality: float
    is_known: bool
    """Whether the batch is within what was measured or published; otherwise `quality` is only an upper bound."""
    note: str


def batch_limits(workload: str, problem: str) -> tuple[BatchLimit, ...]:
    """Limits of a shipped workload's problem, by batch size; empty if nothing is published.

    Raises:
        InputError: for a malformed row.
    """
    folder = next((folder for folder in shipped_workloads() if folder.name == workload), None)
    path = folder / "batch-limits.csv" if folder else None
    if path is None or not path.exists():
        return ()
    limits = [limit for limit in _rows(path) if limit.problem == problem]
    return tuple(sorted(limits, key=lambda limit: limit.global_batch_size))


def _rows(path: Path) -> list[BatchLimit]:
    rows = []
    with path.open(encoding="utf-8", newline="") as file:
        for number, raw in enumerate(csv.DictReader(file), start=2):
            try:
                record = {
                    **raw, "global_batch_size": int(raw["global_batch_size"]), "quality": float(raw["quality"])
                }  # fmt: skip
            except (KeyError, TypeError, ValueError) as error:
                raise InputError(str(error), "fix the row", at=path, line=number) from error
            rows.append(parse(BatchLimit, record, path, line=number))
    return rows


def largest_batch(limits: Sequence[BatchLimit], optimizer: str, measured: int, target: float) -> int:
    """The largest global batch known to reach `target` with `optimizer`, at least the measured one."""
    good = [limit.global_batch_size for limit in limits if limit.optimizer == optimizer and limit.quality >= target]
    return max([measured, *good])


def reach(
    batch: int, limits: Sequence[BatchLimit], optimizer: str, *, measured: int, achieved: float, target: float
) -> Reach:
    """Quality to expect at `batch`, from `achieved` at `measured` and from published results with `optimizer`.

    If the smallest published batch that is large enough reached the target, the measured quality is expected. If it
    fell short, at most its quality is expected; likewise beyond the last published batch.
    """
    if batch <= measured:
        return Reach(achieved, True, "")
    own = [limit for limit in limits if limit.optimizer == optimizer]
    for limit in own:
        if batch <= limit.global_batch_size:
            quality = achieved if limit.quality >= target else min(achieved, limit.quality)
            note = f"{optimizer} reached {limit.quality:.4g} at {limit.global_batch_size:,}: {limit.source}"
            return Reach(quality, True, note)
    others = [limit for limit in limits if batch <= limit.global_batch_size]
    furthest = max([measured, *(limit.global_batch_size for limit in own)])
    note = f"beyond {furthest:,}, the largest known for {optimizer}"
    if others:
        note += f"; {others[0].optimizer} reached {others[0].quality:.4g} at {others[0].global_batch_size:,}"
    short = own[-1].quality if own and own[-1].quality < target else achieved
    return Reach(min(achieved, short), False, note)
