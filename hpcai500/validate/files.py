"""Files of a validation's folder: measurements that stages write and the judge reads, plan, order and progress."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from hpcai500.files import read_json, storage, write_atomic
from hpcai500.spec.models import Frozen, parse

Stage = Literal["inventory", "health", "micro", "links", "collectives", "storage", "training"]

PLAN = "plan.json"
ORDER = "order.json"
PROGRESS = "progress"
MEASUREMENTS = "measurements"
"""Folder of `<writer>.jsonl` files: one writer per file, so that no two nodes append to the same one."""


class Measurement(Frozen):
    """One metric of one subject. `value` is text if only equality counts (`better` is `same`)."""

    stage: Stage
    metric: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.]*$", max_length=120)]
    """Unit in the name: `gemm_bf16_8192_flops`, `link_bytes_per_sec`, `clock_offset_sec`, `layer4.torch.cuda`."""
    unit: str
    """Unit as shown: FLOPS, B/s, s, B, C, W, count; empty for text."""
    value: float | str
    better: Literal["higher", "lower", "same"]
    nodes: tuple[str, ...]
    """One node for itself or its device; two, sorted, for a link; all participants for a collective."""
    device: str = ""
    """Device of the one node, such as `gpu0`; or empty."""
    detail: str = ""


class Trouble(Frozen):
    """What could not be measured, or is broken whatever its peers measure. It always becomes a finding."""

    stage: Stage
    nodes: tuple[str, ...]
    device: str = ""
    kind: Literal["unreachable", "timeout", "failed", "wrong_result", "unhealthy"]
    severity: Literal["warn", "fail"] = "fail"
    metric: str = ""
    message: str
    """What is wrong, for a reader who sees only this."""
    remedy: str = ""


Observation = Measurement | Trouble


class Plan(Frozen):
    """`plan.json`: what was requested, so that missing answers are noticed."""

    schema_version: Literal[1] = 1
    system: str
    site: str = ""
    partition: str = ""
    level: Literal[1, 2, 3]
    stages: tuple[Stage, ...]
    nodes: tuple[str, ...]
    """Every node that must answer. Drained and down nodes are included; each has a `Trouble`."""
    started: str
    """UTC, ISO 8601."""
    version: str
    """Version of this package."""


class Order(Frozen):
    """`order.json`: what the agents of a job must know in addition to the plan."""

    members: tuple[str, ...]
    """Reachable nodes, in the order in which they become leader."""
    alone: bool = False
    """Each node runs by itself: no stage may wait for another node."""
    step_timeout_sec: float
    """Time that a node may take for one step before the others continue without it."""


class Progress(Frozen):
    """`progress/NODE`: how far a node's agent has come."""

    stage: Stage | None = None
    step: str = ""
    finished: tuple[Stage, ...] = ()
    ended: bool = False
    """The agent has nothing more to do."""
    num_beats: int = 0
    """Number of signs of life while it waited for others."""


def append(folder: Path, writer: str, found: Iterable[Observation]) -> None:
    """Add lines to `writer`'s file under the validation's `folder`."""
    path = folder / MEASUREMENTS / f"{writer}.jsonl"
    with storage(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            for one in found:
                line: dict[str, Any] = {"type": type(one).__name__.lower(), **one.model_dump(mode="json")}
                file.write(json.dumps(line, separators=(",", ":")) + "\n")


def read_plan(folder: Path) -> Plan:
    return parse(Plan, read_json(folder / PLAN), folder / PLAN)


def read_order(folder: Path) -> Order:
    return parse(Order, read_json(folder / ORDER), folder / ORDER)


def read_progress(folder: Path, node: str) -> Progress | None:
    """Progress of `node`; None if it has not started."""
    path = folder / PROGRESS / node
    return parse(Progress, read_json(path), path) if path.exists() else None


def write_progress(folder: Path, node: str, progress: Progress) -> None:
    write_atomic(folder / PROGRESS / node, progress.model_dump_json() + "\n")
