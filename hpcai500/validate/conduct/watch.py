"""Waiting for the agents, for a limited time: a node that never reports is a finding."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from hpcai500.errors import HpcAi500Error
from hpcai500.validate.conduct.jobs import Agents, AgentStatus
from hpcai500.validate.files import Progress, Stage, Trouble, read_progress

_POLL_SEC = 0.5
_POLL_NODE_SEC = 0.001
"""Additional pause per node, whose file is read each time: the file system is shared with others."""
_ASK_SEC = 3.0
"""Pause between two calls of Slurm."""


class Limits(NamedTuple):
    step_sec: float
    """Time after which the other agents give up a node."""
    total_sec: float
    """Limit for everything, the wait in the queue included."""
    margin_sec: float = 15.0
    """Wait beyond a step's limit, so that the other agents give up first."""
    lag_sec: float = 8.0
    """Time that a shared file system may take to show what a node wrote before its job ended."""


class _Node:
    """The progress of one node, timed by this machine's clock."""

    def __init__(self, now: float) -> None:
        self.progress: Progress | None = None
        self.moved_at = now
        self.gone_at: float | None = None

    def see(self, progress: Progress | None, status: AgentStatus, now: float) -> None:
        if progress != self.progress or status.state == "waiting":
            self.moved_at = now
        self.progress = progress
        self.gone_at = (self.gone_at or now) if status.state == "over" else None

    def why_given_up(self, status: AgentStatus, started: float, now: float, limits: Limits) -> str:
        """The reason to give up the node; empty if it may still report."""
        if self.gone_at is not None and now - self.gone_at >= limits.lag_sec:
            return status.reason or "its job ended"
        if now - started > limits.total_sec:
            waits = f"waiting in the queue: {status.reason}" if status.state == "waiting" else "at work"
            return f"still {waits} when the {limits.total_sec:g} s of --timeout-sec were over"
        silence_sec = limits.step_sec + limits.margin_sec
        return f"no sign of life for {silence_sec:g} s" if now - self.moved_at > silence_sec else ""


def watch(
    folder: Path,
    nodes: Sequence[str],
    stages: Sequence[Stage],
    agents: Agents,
    limits: Limits,
    say: Callable[[str], None],
) -> list[Trouble]:
    """Wait until every agent has ended or is given up; what is missing then, and why.

    A node is given up if it shows no progress for longer than a step may take, or if its job has ended. All nodes
    are given up when the total time is over.
    """
    started = asked = time.monotonic()
    status = agents.look()
    known = {node: _Node(started) for node in nodes}
    troubles: list[Trouble] = []
    announced: set[Stage] = set()
    while known:
        time.sleep(_POLL_SEC + _POLL_NODE_SEC * len(known))
        now = time.monotonic()
        if now - asked > _ASK_SEC:
            status, asked = agents.look(), now
        for name, node in sorted(known.items()):
            node.see(_look(folder, name), status[name], now)
            if node.progress and node.progress.ended:
                del known[name]
            elif why := node.why_given_up(status[name], started, now, limits):
                del known[name]
                troubles.append(trouble(name, stages, node.progress, status[name], why))
        for node in known.values():
            stage = node.progress and node.progress.stage
            if stage and stage not in announced:
                announced.add(stage)
                say(f"{now - started:4.0f} s  {stage}")
    return troubles


def trouble(node: str, stages: Sequence[Stage], progress: Progress | None, status: AgentStatus, why: str) -> Trouble:
    """The finding for a node that did not finish."""
    unfinished = [stage for stage in stages if progress is None or stage not in progress.finished]
    stage = (progress and progress.stage) or (unfinished or list(stages))[0]
    if progress is None:
        message = f"the node never began: {why}"
        remedy = "see logs/ of this validation, `scontrol show node`, and slurmd's log on the node"
        return Trouble(stage=stage, nodes=(node,), kind="unreachable", message=message, remedy=remedy)
    if status.state == "over":
        message = f"lost in the middle of the work: {why}"
        remedy = "see `scontrol show node`, and slurmd's log and dmesg on the node"
        return Trouble(stage=stage, nodes=(node,), kind="unreachable", message=message, remedy=remedy)
    step = f" ({progress.step})" if progress.step else ""
    message = f"hung in {stage}{step}: {why}"
    remedy = "see dmesg on the node for a hung driver, disk or network"
    return Trouble(stage=stage, nodes=(node,), kind="timeout", message=message, remedy=remedy)


def settle(agents: Agents, stage: Stage, timeout_sec: float) -> list[Trouble]:
    """Wait for the jobs to end by themselves; the nodes that were lost although their agents had finished."""
    deadline = time.monotonic() + timeout_sec
    while time.monotonic() < deadline:
        if all(status.state == "over" for status in agents.look().values()):
            break
        time.sleep(_POLL_SEC)
    remedy = "see slurmd's log and `scontrol show node`"
    return [
        Trouble(stage=stage, nodes=(node,), kind="unreachable", message=f"lost by its end: {why}", remedy=remedy)
        for node, why in agents.lost().items()
    ]


def _look(folder: Path, node: str) -> Progress | None:
    """The progress of a node; None if its file cannot be read yet."""
    try:
        return read_progress(folder, node)
    except HpcAi500Error:
        return None
