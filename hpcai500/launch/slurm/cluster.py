"""The configuration, partitions, nodes and MPI plugins of a Slurm cluster."""

import math
import re
from typing import NamedTuple

from hpcai500.errors import InputError, MachineError, SpecError, nearest
from hpcai500.launch.slurm.client import ask, ask_or_raise, last_line
from hpcai500.spec.site import time_limit_sec

_NODE_FIELDS = "%R|%N|%T|%c|%m|%G"
_STATE_FIELDS = "%P|%N|%T|%E"
_UNUSABLE = ("down", "drain", "fail", "error", "unknown", "inval", "power_down", "powering_down", "blocked")
_GPU = re.compile(r"gpu:(?:([^:,()]+):)?(\d+)")


class Node(NamedTuple):
    name: str
    is_up: bool
    num_cpus: int
    memory_mb: int
    gpus: dict[str, int]
    """Number of GPUs of each type; the name `""` for GPUs without a type."""

    @property
    def num_gpus(self) -> int:
        return sum(self.gpus.values())


class NodeState(NamedTuple):
    state: str
    """Slurm's word, with a `*` if the node does not answer: `idle`, `mixed`, `drained`, `down*`."""
    reason: str
    """Why it is down or drained; empty otherwise."""

    @property
    def is_up(self) -> bool:
        return is_usable(self.state)


class Cluster(NamedTuple):
    config: dict[str, str]
    partitions: dict[str, dict[str, str]]
    """Fields of each partition by name, as `scontrol show partition` prints them."""
    nodes: dict[str, list[Node]]
    """Nodes by partition."""
    mpi_plugins: tuple[str, ...]
    has_pyxis: bool
    """Whether srun has the option `--container-image`."""
    accounting_fault: str
    """Why `sacct` fails; empty if it works."""


def ask_cluster() -> Cluster:
    """The cluster, as Slurm's own commands report it.

    Raises:
        MachineError: if they are not installed, or if the controller does not answer.
    """
    config = parse_config(ask_or_raise("scontrol", "show", "config"))
    partitions = parse_partitions(ask_or_raise("scontrol", "show", "partition", "--oneliner", "--all"))
    nodes = parse_nodes(ask_or_raise("sinfo", "--noheader", "--Node", "--all", f"--format={_NODE_FIELDS}"))
    listing = ask("srun", "--mpi=list")
    plugins = parse_mpi_plugins(listing.out + listing.err)
    has_pyxis = "--container-image" in ask("srun", "--help").out
    sacct = ask("sacct", "--noheader", "--allocations", "--jobs=1")
    fault = last_line(sacct.err, "it failed") if sacct.code else ""
    return Cluster(config, partitions, nodes, plugins, has_pyxis, fault)


def parse_config(text: str) -> dict[str, str]:
    """The output of `scontrol show config` as a dictionary."""
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
    return {name.strip(): value.strip() for name, _, value in pairs}


def parse_partitions(text: str) -> dict[str, dict[str, str]]:
    """The output of `scontrol show partition --oneliner`, by partition."""
    partitions = {}
    for line in text.splitlines():
        fields = dict(word.split("=", 1) for word in line.split() if "=" in word)
        if "PartitionName" in fields:
            partitions[fields["PartitionName"]] = fields
    return partitions


def parse_nodes(text: str) -> dict[str, list[Node]]:
    """The output of `sinfo --Node --format=%R|%N|%T|%c|%m|%G`, which has a line for each node of each partition."""
    nodes: dict[str, list[Node]] = {}
    for line in text.splitlines():
        partition, name, state, cpus, memory, gres = line.split("|", 5)
        gpus: dict[str, int] = {}
        for kind, count in _GPU.findall(gres):
            gpus[kind] = gpus.get(kind, 0) + int(count)
        node = Node(name, is_usable(state), int(cpus.rstrip("+")), int(memory.rstrip("+")), gpus)
        nodes.setdefault(partition, []).append(node)
    return nodes


def is_usable(state: str) -> bool:
    """Whether a node in `state`, as sinfo prints it, can take a job now or later."""
    return not state.endswith("*") and not state.startswith(_UNUSABLE)


def ask_states(partition: str = "") -> tuple[str, dict[str, NodeState]]:
    """The partition's name (the cluster's default if empty), and the state of each of its nodes.

    Raises:
        MachineError: if Slurm does not answer.
        InputError: if there is no such partition.
    """
    states = parse_states(ask_or_raise("sinfo", "--noheader", "--Node", "--all", f"--format={_STATE_FIELDS}"))
    name = partition or next((each for each in states if each.endswith("*")), "")
    found = states.get(name, states.get(f"{name}*", {}))
    if not found:
        known = [each.rstrip("*") for each in states]
        wanted = f"no partition {partition!r}" if partition else "the cluster has no default partition"
        raise InputError(wanted, f"{nearest(partition, known)} (have: {', '.join(known)})")
    return name.rstrip("*"), found


def longest_sec(partition: str) -> float:
    """Seconds for which the partition lets a job run; infinite if it has no limit.

    Raises:
        MachineError: if Slurm does not answer.
    """
    limit = ask_or_raise("sinfo", "--noheader", f"--partition={partition}", "--format=%l").strip().split("\n")[0]
    return float(time_limit_sec(limit)) if limit[:1].isdigit() else math.inf


def parse_states(text: str) -> dict[str, dict[str, NodeState]]:
    """The output of `sinfo --Node --format=%P|%N|%T|%E` by partition; the default's name ends in `*`."""
    states: dict[str, dict[str, NodeState]] = {}
    for line in text.splitlines():
        partition, node, state, reason = line.split("|", 3)
        states.setdefault(partition, {})[node] = NodeState(state, "" if reason == "none" else reason)
    return states


def expand_names(names: str) -> list[str]:
    """`node[1-3],login` as single names, expanded by Slurm itself.

    Raises:
        SpecError: for brackets that do not close.
        MachineError: if Slurm does not answer.
    """
    if set("[]") & set(re.sub(r"\[[^][]*\]", "", names)):
        raise SpecError(f"{names!r}: unbalanced bracket", "write nodes as Slurm does, node[1-3],login")
    return ask_or_raise("scontrol", "show", "hostnames", names).split()


def parse_mpi_plugins(text: str) -> tuple[str, ...]:
    """The output of `srun --mpi=list`: one name per line, and PMIx's versions after a colon."""
    names: list[str] = []
    for line in text.splitlines():
        title, colon, versions = line.removeprefix("srun: ").partition(":")
        words = versions.replace(",", " ").split() if colon else title.split()
        if len(words) == 1 or colon:
            names += [word for word in words if word not in names]
    return tuple(names)


MAX_ARRAY_SIZE = 1_001
"""Slurm's default for MaxArraySize, which limits an array's index and not its length."""


def max_array_size() -> int:
    """The cluster's MaxArraySize, which limits an array's index; the default if Slurm does not answer."""
    try:
        size = parse_config(ask_or_raise("scontrol", "show", "config")).get("MaxArraySize", "")
    except MachineError:
        return MAX_ARRAY_SIZE
    return int(size) if size.isdigit() else MAX_ARRAY_SIZE
