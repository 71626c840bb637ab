"""From a request to running agents: the nodes, the files that agents read, and how agents are started."""

import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import hpcai500
from hpcai500.errors import OccupiedError, SpecError
from hpcai500.files import storage, write_atomic
from hpcai500.launch.environment import this_machine
from hpcai500.launch.launcher import RankStart
from hpcai500.launch.layout import Layout
from hpcai500.launch.slurm.cluster import NodeState, expand_names, longest_sec
from hpcai500.launch.slurm.snapshot import take_package_snapshot
from hpcai500.launch.slurm.submission import submit_script
from hpcai500.launch.start import Worker, start_command
from hpcai500.spec.site import Site
from hpcai500.validate.conduct.jobs import Agents, Jobs, Process
from hpcai500.validate.conduct.script import agent_site, agent_worker, agents_step, render_agents
from hpcai500.validate.files import ORDER, Order, Plan, Stage, Trouble

STAGES_OF_LEVEL: dict[int, tuple[Stage, ...]] = {
    1: ("inventory", "health", "micro", "links"),
    2: ("inventory", "health", "micro", "links", "collectives", "storage"),
    3: ("inventory", "health", "micro", "links", "collectives", "storage", "training"),
}
TIMEOUT_SEC = {1: 1_800.0, 2: 3_600.0, 3: 10_800.0}
"""Default limit for the whole command by level, the wait in the queue included."""
STEP_TIMEOUT_SEC = {1: 120.0, 2: 300.0, 3: 900.0}
"""Default limit for one step by level, far above what a step takes: a slower node counts as hung."""
WRITER = "launch"
"""Writer of the measurement file for what is known without asking a node."""

_REMEDY = "see `scontrol show node`; fix the node, then `scontrol update nodename=NODE state=resume`"


class Choice(NamedTuple):
    """The nodes of a validation."""

    members: tuple[str, ...]
    """Nodes that can run an agent."""
    troubles: tuple[Trouble, ...]
    """Why the others cannot."""

    @property
    def nodes(self) -> tuple[str, ...]:
        return (*self.members, *(node for trouble in self.troubles for node in trouble.nodes))


def choose_nodes(
    wanted: str, states: dict[str, NodeState], partition: str, stage: Stage, *, per_node: bool
) -> Choice:
    """The nodes of `--nodes` that can run an agent, and why the others cannot.

    `wanted` is `all`, a number, or a list as Slurm writes it. `per_node` leaves busy nodes out.

    Raises:
        SpecError: for a node that the partition lacks, or more nodes than it has.
    """
    if wanted.isdigit():
        number = int(wanted)
        if not 1 <= number <= len(states):
            raise SpecError(f"--nodes {wanted}: {partition} has {len(states)} nodes", "give 1 to that many, or all")
        rank = {"idle": 0, "mixed": 1}
        order = sorted(states, key=lambda node: (not states[node].is_up, rank.get(states[node].state, 2)))
        names = [node for node in states if node in set(order[:number])]
    elif wanted == "all":
        names = list(states)
    else:
        names = list(dict.fromkeys(expand_names(wanted)))
    if unknown := [node for node in names if node not in states]:
        raise SpecError(f"--nodes: {', '.join(unknown)} not in partition {partition}", "`sinfo -N` lists its nodes")
    troubles = [_not_up(node, states[node], stage) for node in names if not states[node].is_up]
    members = [node for node in names if states[node].is_up]
    if per_node:
        troubles += [_busy(node, stage) for node in members if states[node].state != "idle"]
        members = [node for node in members if states[node].state == "idle"]
    return Choice(tuple(members), tuple(troubles))


def _not_up(node: str, state: NodeState, stage: Stage) -> Trouble:
    said = f"Slurm says it is {state.state.rstrip('*')}" + (" and does not answer" if "*" in state.state else "")
    message = f"{said}: {state.reason}" if state.reason else said
    return Trouble(stage=stage, nodes=(node,), kind="unreachable", message=message, remedy=_REMEDY)


def _busy(node: str, stage: Stage) -> Trouble:
    return Trouble(
        stage=stage, nodes=(node,), kind="unreachable", severity="warn",
        message="busy with other jobs: not validated", remedy="ask again with --per-node when it is idle",
    )  # fmt: skip


def open_folder(output: Path, plan: Plan) -> Path:
    """Make the folder of one validation, named for the moment of its start.

    Raises:
        OccupiedError: if another one began in the same second.
    """
    started = datetime.fromisoformat(plan.started)
    folder = output.absolute() / plan.system / started.strftime("%Y%m%dT%H%M%SZ")
    with storage(folder):
        try:
            folder.mkdir(parents=True)
        except FileExistsError as error:
            raise OccupiedError(f"{folder}: another validation began there this second", "ask again") from error
        (folder / "logs").mkdir()
    return folder


def write_order(folder: Path, order: Order) -> None:
    """Write what the agents read besides the plan."""
    write_atomic(folder / ORDER, order.model_dump_json(indent=2) + "\n")


def start_here(folder: Path, node: str) -> Agents:
    """Start one agent on this machine."""
    return _started(agent_worker(folder, node), RankStart(Layout()), folder / "logs" / f"{node}.log", [node])


def start_in_allocation(folder: Path, site: Site, nodes: Sequence[str]) -> Agents:
    """Start one agent on each node of the allocation around us, by one step of srun."""
    step = agents_step(agent_site(site, partition="", minutes=1, nodes=""), folder, len(nodes))
    return _started(agent_worker(folder), step, folder / "logs" / "srun.log", nodes)


def _started(worker: Worker, step: RankStart, log: Path, nodes: Sequence[str]) -> Agents:
    machine = this_machine()
    started = start_command(worker._replace(environment=_own_code(machine.env)), step, machine)
    return Process(started.argv, started.env, str(log), nodes)


def submit_agents(
    folder: Path, site: Site, partition: str, nodes: Sequence[str], *, per_node: bool, timeout_sec: float
) -> Agents:
    """Submit one job on all nodes, or one per node.

    The time limit is how long the command waits, but never more than the partition allows.

    Raises:
        InputError: with the answer of sbatch, if it refuses a job.
    """
    snapshot = str(take_package_snapshot(folder.parents[1]))
    minutes = max(1, int(min(timeout_sec, longest_sec(partition)) / 60))
    name = f"hpcai500-validate-{folder.name}"

    def submit(num_nodes: int, nodelist: str) -> str:
        asked = agent_site(site, partition=partition, minutes=minutes, nodes=nodelist)
        script = render_agents(
            asked, folder, name=name, num_nodes=num_nodes, python=sys.executable, snapshot=snapshot
        )
        return submit_script(script, folder / "logs")

    if per_node:
        return Jobs({node: submit(1, node) for node in nodes}, partition)
    nodefile = folder / "nodes.txt"
    write_atomic(nodefile, "".join(f"{node}\n" for node in nodes))
    return Jobs(dict.fromkeys(nodes, submit(len(nodes), str(nodefile))), partition)


def _own_code(env: Mapping[str, str]) -> dict[str, str]:
    """A PYTHONPATH on which this copy of the package comes first."""
    paths = [str(Path(hpcai500.__file__).parents[1]), env.get("PYTHONPATH", "")]
    return {"PYTHONPATH": ":".join(path for path in paths if path)}
