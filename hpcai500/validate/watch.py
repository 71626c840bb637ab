"""Waiting for the agents, and for none of them too long: what never came is a finding."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from hpcai500.errors import HpcAi500Error
from hpcai500.validate.jobs import Agents, Standing
from hpcai500.validate.measurement import Stage, Trouble
from hpcai500.validate.place import Progress, read_progress

_POLL_SEC = 0.5
_ASK_SEC = 3.0
"""Between two questions to Slurm."""
_MARGIN_SEC = 15.0
"""Beyond the time in which the other agents give a node up."""
_LAG_SEC = 8.0
"""That a shared file system may take to show what a node wrote before its job ended."""


class _Seen(NamedTuple):
    progress: Progress | None
    at: float
    """When it was first seen to be so, by this machine's clock."""


def watch(
    folder: Path,
    nodes: Sequence[str],
    stages: Sequence[Stage],
    agents: Agents,
    *,
    step_timeout_sec: float,
    timeout_sec: float,
    say: Callable[[str], None],
) -> list[Trouble]:
    """Wait until every agent has ended, or is given up; what is then missing, and why.

    A node is given up when it has shown no progress for longer than a step may take, when its job or itself is gone,
    and when `timeout_sec` are over.
    """
    started = asked = time.monotonic()
    standing = dict(agents.look())
    seen = {node: _Seen(None, started) for node in nodes}
    open_nodes, troubles, gone_at = set(nodes), [], {}  # type: ignore[var-annotated]
    told: set[Stage] = set()
    while open_nodes:
        time.sleep(_POLL_SEC)
        now = time.monotonic()
        if now - asked > _ASK_SEC:
            standing, asked = dict(agents.look()), now
        for node in sorted(open_nodes):
            progress = _look(folder, node)
            if progress != seen[node].progress:
                seen[node] = _Seen(progress, now)
                if progress and progress.stage and progress.stage not in told:
                    told.add(progress.stage)
                    say(f"{now - started:4.0f} s  {progress.stage}")
            if progress and progress.ended:
                open_nodes.discard(node)
                continue
            if standing[node].state == "waiting":
                seen[node] = _Seen(progress, now)
            if standing[node].state == "over":
                gone_at.setdefault(node, now)
            else:
                gone_at.pop(node, None)
            why = _why_given_up(
                standing[node], now - seen[node].at, now - gone_at.get(node, now), now - started,
                step_timeout_sec=step_timeout_sec, timeout_sec=timeout_sec,
            )  # fmt: skip
            if why:
                open_nodes.discard(node)
                troubles.append(trouble(node, stages, progress, standing[node], why))
    return troubles


def _why_given_up(
    standing: Standing,
    silent_sec: float,
    gone_sec: float,
    total_sec: float,
    *,
    step_timeout_sec: float,
    timeout_sec: float,
) -> str:
    """Empty where there is still hope."""  # fmt: skip
    if gone_sec > _LAG_SEC:
        return standing.reason or "its job ended"
    if total_sec > timeout_sec:
        waits = f"waiting in the queue: {standing.reason}" if standing.state == "waiting" else "at work"
        return f"still {waits} when the {timeout_sec:g} s of --timeout-sec were over"
    if silent_sec > step_timeout_sec + _MARGIN_SEC:
        return f"no sign of life for {step_timeout_sec + _MARGIN_SEC:g} s"
    return ""


def trouble(node: str, stages: Sequence[Stage], progress: Progress | None, standing: Standing, why: str) -> Trouble:
    """What is to be said of a node that did not come to the end."""
    unfinished = [stage for stage in stages if progress is None or stage not in progress.finished]
    stage = (progress and progress.stage) or (unfinished or list(stages))[0]
    if progress is None:
        message = f"the node never began: {why}"
        remedy = "see logs/ of this validation, `scontrol show node`, and slurmd's log on the node"
        return Trouble(stage=stage, nodes=(node,), kind="unreachable", message=message, remedy=remedy)
    if standing.state == "over":
        message = f"lost in the middle of the work: {why}"
        remedy = "see `scontrol show node`, and slurmd's log and dmesg on the node"
        return Trouble(stage=stage, nodes=(node,), kind="unreachable", message=message, remedy=remedy)
    step = f" ({progress.step})" if progress.step else ""
    message = f"hung in {stage}{step}: {why}"
    remedy = "see dmesg on the node for a hung driver, disk or network"
    return Trouble(stage=stage, nodes=(node,), kind="timeout", message=message, remedy=remedy)


def settle(agents: Agents, stage: Stage, timeout_sec: float) -> list[Trouble]:
    """Let the jobs end by themselves; nodes that were lost meanwhile, though their agents came to the end."""
    deadline = time.monotonic() + timeout_sec
    while time.monotonic() < deadline:
        if all(standing.state == "over" for standing in agents.look().values()):
            break
        time.sleep(_POLL_SEC)
    remedy = "see slurmd's log and `scontrol show node`"
    return [
        Trouble(stage=stage, nodes=(node,), kind="unreachable", message=f"lost by its end: {why}", remedy=remedy)
        for node, why in agents.lost().items()
    ]


def _look(folder: Path, node: str) -> Progress | None:
    """None too for a file that cannot be read: it may be on its way."""
    try:
        return read_progress(folder, node)
    except HpcAi500Error:
        return None
