"""Waiting for the agents, and for none of them too long: what never came is a finding."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from hpcai500.errors import HpcAi500Error
from hpcai500.validate.conduct.jobs import Agents, Standing
from hpcai500.validate.files import Progress, Stage, Trouble, read_progress

_POLL_SEC = 0.5
_POLL_NODE_SEC = 0.001
"""More for each node, whose file is read: a shared file system has other work."""
_ASK_SEC = 3.0
"""Between two questions to Slurm."""


class Limits(NamedTuple):
    step_sec: float
    """After which the other agents give a node up."""
    total_sec: float
    """Of everything, the wait in the queue included."""
    margin_sec: float = 15.0
    """That we wait beyond a step, so that the agents give up first."""
    lag_sec: float = 8.0
    """That a shared file system may take to show what a node wrote before its job ended."""


class _Node:
    """What is known of one node, by this machine's clock."""

    def __init__(self, now: float) -> None:
        self.progress: Progress | None = None
        self.moved_at = now
        self.gone_at: float | None = None

    def see(self, progress: Progress | None, standing: Standing, now: float) -> None:
        if progress != self.progress or standing.state == "waiting":
            self.moved_at = now
        self.progress = progress
        self.gone_at = (self.gone_at or now) if standing.state == "over" else None

    def why_given_up(self, standing: Standing, started: float, now: float, limits: Limits) -> str:
        """Empty where there is still hope."""
        if self.gone_at is not None and now - self.gone_at >= limits.lag_sec:
            return standing.reason or "its job ended"
        if now - started > limits.total_sec:
            waits = f"waiting in the queue: {standing.reason}" if standing.state == "waiting" else "at work"
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
    """Wait until every agent has ended, or is given up; what is then missing, and why.

    A node is given up when it has shown no progress for longer than a step may take, when its job or itself is gone,
    and when the time for everything is over.
    """  # fmt: skip
    started = asked = time.monotonic()
    standing = agents.look()
    known = {node: _Node(started) for node in nodes}
    troubles: list[Trouble] = []
    told: set[Stage] = set()
    while known:
        time.sleep(_POLL_SEC + _POLL_NODE_SEC * len(known))
        now = time.monotonic()
        if now - asked > _ASK_SEC:
            standing, asked = agents.look(), now
        for name, node in sorted(known.items()):
            node.see(_look(folder, name), standing[name], now)
            if node.progress and node.progress.ended:
                del known[name]
            elif why := node.why_given_up(standing[name], started, now, limits):
                del known[name]
                troubles.append(trouble(name, stages, node.progress, standing[name], why))
        for node in known.values():
            stage = node.progress and node.progress.stage
            if stage and stage not in told:
                told.add(stage)
                say(f"{now - started:4.0f} s  {stage}")
    return troubles


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
