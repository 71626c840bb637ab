"""What each node is, in Layers 1 to 5: all of it must be the same on all nodes."""

from collections.abc import Iterable, Iterator
from typing import Any

from hpcai500.validate.agent.children import run_children
from hpcai500.validate.agent.seat import Found, Place
from hpcai500.validate.files import Measurement

_LEFT_OUT = ("environment.CUDA_VISIBLE_DEVICES",)
"""Slurm's to choose, node by node."""
_MEMORY_GRAIN_BYTES = 1 << 30
"""The kernel keeps a little more of it on one node than on another."""


def run(place: Place) -> Iterable[Found]:
    return run_children(place, "inventory", [()])


def measure(place: Place) -> Iterator[Found]:
    """On the node, in a process of its own: torch is asked too."""
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
                    better="same", nodes=(place.node,),
                )  # fmt: skip


def flattened(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Dotted key and text of each leaf, `gpus.0.model`, and of each list its length, `gpus.count`.

    A node that lacks a device has all the others' leaves: its length alone differs.
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
    """As a metric may be called: small letters, figures, points and underscores."""
    return "".join(letter if letter.isalnum() and letter.isascii() else "." if letter == "." else "_"
                   for letter in text.lower())[:120]  # fmt: skip
