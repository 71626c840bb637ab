"""What runs the agents: a process of this machine, a step of the allocation around us, or Slurm jobs."""

import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Literal, NamedTuple, Protocol

from hpcai500.errors import HpcAi500Error
from hpcai500.launch.slurm.cluster import NodeState, ask_states
from hpcai500.launch.slurm.queue import cancel, recent_jobs

_END_SEC = 10.0


class AgentStatus(NamedTuple):
    """The state of a node's agent, as reported by what started it."""

    state: Literal["waiting", "running", "over"]
    reason: str = ""


class Agents(Protocol):
    def look(self) -> Mapping[str, AgentStatus]:
        """The state of each node's agent."""

    def lost(self) -> Mapping[str, str]:
        """Nodes that can no longer work, and why."""

    def end(self) -> None:
        """End the agents that still run."""


class Process:
    """Agents that one process on this machine started, or the agent that it is."""

    def __init__(self, argv: Sequence[str], env: Mapping[str, str], log: str, nodes: Sequence[str]) -> None:
        self._nodes = nodes
        with open(log, "ab") as file:  # noqa: PTH123 - inherited by the process
            self._process = subprocess.Popen(
                argv, env=dict(env), stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
            )

    def look(self) -> dict[str, AgentStatus]:
        code = self._process.poll()
        status = AgentStatus("running") if code is None else AgentStatus("over", f"it ended with exit code {code}")
        return dict.fromkeys(self._nodes, status)

    def lost(self) -> dict[str, str]:
        return {}

    def end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(_END_SEC)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Jobs:
    """Agents inside Slurm jobs: one job per node, or one for all."""

    def __init__(self, job_of: Mapping[str, str], partition: str) -> None:
        self._job_of = job_of
        self._partition = partition
        self._last = dict.fromkeys(job_of, AgentStatus("waiting"))

    def look(self) -> dict[str, AgentStatus]:
        """The state of each node's agent; the last known one if Slurm does not answer."""
        with suppress(HpcAi500Error):
            jobs = recent_jobs(self._job_of.values())
            _, states = ask_states(self._partition)
            for node, job_id in self._job_of.items():
                job = jobs.get(job_id)
                if node in states and not states[node].is_up:
                    self._last[node] = AgentStatus("over", _why(states[node]))
                elif job and job.is_waiting:
                    self._last[node] = AgentStatus("waiting", job.reason)
                elif job and job.is_running:
                    self._last[node] = AgentStatus("running")
                else:
                    ended = f"{job.state.lower()} {job.reason}" if job else "over"
                    self._last[node] = AgentStatus("over", f"its job ended: {ended}".strip())
        return self._last

    def lost(self) -> dict[str, str]:
        with suppress(HpcAi500Error):
            _, states = ask_states(self._partition)
            found = {node: states[node] for node in self._job_of if node in states}
            return {node: _why(state) for node, state in found.items() if not state.is_up}
        return {}

    def end(self) -> None:
        with suppress(HpcAi500Error):
            cancel(sorted(set(self._job_of.values())))


def _why(state: NodeState) -> str:
    return f"Slurm says {state.state}" + (f": {state.reason}" if state.reason else "")
