"""Comparison of values that several files of a run hold."""

import math
from collections.abc import Iterator
from typing import Any

from hpcai500.events import typed
from hpcai500.events.reader import Event
from hpcai500.events.typed import Payload

CrossCheck = tuple[str, Any, Any]
"""Name of a value that two files hold, the value found, and the value that follows from run.json."""


def logged_values(events: list[Event], form: type[Payload], expected: Any) -> Iterator[CrossCheck]:
    """Each value of one key in the log, or None if there is none, with the expected one."""
    for found in [event.value for event in typed.payloads(events, form)] or [None]:
        yield f"events.log: {form.key.value}", found, expected


def shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def same(left: Any, right: Any) -> bool:
    """Equal, floats up to rounding."""
    if isinstance(left, float) and isinstance(right, int | float):
        return math.isclose(left, right, rel_tol=1e-9)
    return bool(left == right)
