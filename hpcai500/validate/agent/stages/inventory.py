"""Layers 1 to 5 of each node, which must be the same on all nodes."""

from collections.abc import Iterable, Iterator
from typing import Any

from hpcai500.validate.agent.children import run_children
from hpcai500.validate.agent.seat import Seat
from hpcai500.validate.files import Measurement, Observation

_LEFT_OUT = ("environment.CUDA_VISIBLE_DEVICES",)
"""Keys that Slurm chooses node by node."""
_MEMORY_GRAIN_BYTES = 1 << 30
"""Rounding of memory sizes: the kernel reserves slightly different amounts on equal nodes."""


def run(seat: Seat) -> Iterable[Observation]:
    return run_children(seat, "inventory", [()])


def measure(seat: Seat) -> Iterator[Observation]:
    """In a child process, since torch is imported."""
    from hpcai500.system.hardware import hardware
    from hpcai500.system.software import acceleration_libraries, communication_libraries, framework, operating_system

    layers = {
        1: hardware(), 2: operating_system(), 3: communication_libraries(), 4: acceleration_libraries(),
        5: framework(),
    }  # fmt: skip
    for number, layer in layers.items():
        for key, value in flattened(layer):
            if key not in _LEFT_OUT:
                yield Measurement(
                    stage="inventory", metric=metric_name(f"layer{number}.{key}"), unit="", value=value,
                    better="same", nodes=(seat.node,),
                )  # fmt: skip


def flattened(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Dotted key and text of each leaf, such as `gpus.0.model`, and the length of each list, such as `gpus.count`.

    A node that lacks a device has the other devices' leaves: only the length differs.
    """
    if isinstance(value, list):
        yield f"{key}.count", str(len(value))
    if isinstance(value, list) or (isinstance(value, dict) and value):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for name, item in items:
            yield from flattened(item, f"{key}.{name}" if key else str(name))
    elif key.endswith("memory_bytes") and isinstance(value, int):
        yield key, f"{value / _MEMORY_GRAIN_BYTES:.0f} GiB"
    else:
        yield key, "none" if value in (None, {}) else str(value)


def metric_name(text: str) -> str:
    """Valid metric name made from `text`: lower-case letters, digits, dots and underscores."""
    return "".join(letter if letter.isalnum() and letter.isascii() else "." if letter == "." else "_"
                   for letter in text.lower())[:120]  # fmt: skip
