"""The check whether a job would fail at a site: the profile compared with Slurm's own data, and paths on a node."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from hpcai500.errors import InputError, nearest
from hpcai500.launch.container import site_python
from hpcai500.launch.slurm.client import ask, last_line
from hpcai500.launch.slurm.cluster import Cluster, Node, ask_cluster
from hpcai500.launch.slurm.header import Header, sbatch_options
from hpcai500.spec.site import Site, time_limit_sec

_WAIT_SEC = 30
"""Seconds to wait for a free node, on which the paths are checked."""

_LOOK = """\
while [ $# -gt 0 ]; do
    path=$2
    if [ "$1" = -w ]; then until [ -e "$path" ]; do path=$(dirname -- "$path"); done; fi
    [ "$1" "$path" ] || printf '%s\\n' "$3"
    shift 3
done
echo looked
"""
"""A script for bash. Its arguments are triples of a test, a path and a name; it prints the names that fail.

For a folder that does not exist yet, it tests the nearest folder above it.
"""


class SiteFinding(NamedTuple):
    level: Literal["ok", "warning", "error"]
    subject: str
    message: str


class Look(NamedTuple):
    """One path to check on a node."""

    test: Literal["-e", "-d", "-x", "-w"]
    path: str
    subject: str
    complaint: str


def check_all(site: Site, nodes: int | None, *, starts_job: bool) -> Iterator[SiteFinding]:
    """What would make a job of `nodes` nodes fail at `site`, the cheapest check first.

    `starts_job` checks the site's paths too, by a short job.

    Raises:
        InputError: for no number of nodes.
        MachineError: if Slurm does not answer.
    """
    nodes = site.slurm.nodes if nodes is None else nodes
    if nodes < 1:
        raise InputError(f"--nodes {nodes}: not a number of nodes", "give 1 or more")
    yield from check_site(site, nodes, ask_cluster(), groups_of_user())
    yield check_submission(site, nodes)
    if starts_job:
        folders = [folder for folder in site.places.data.values() if isinstance(folder, str)]
        folders += [
            folder for each in site.places.data.values() if isinstance(each, dict) for folder in each.values()
        ]
        yield from check_paths(site, folders, str(Path(site.places.results or "results").absolute()))


def check_site(site: Site, nodes: int, cluster: Cluster, groups: Sequence[str]) -> Iterator[SiteFinding]:
    """Findings from Slurm's configuration about a job of `nodes` nodes, for a user in `groups`."""
    names = partition_names(site, cluster)
    if not names:
        yield SiteFinding("error", "partition", "the cluster has no default partition: give slurm.partition")
    for name in names:
        if name not in cluster.partitions:
            yield SiteFinding("error", "partition", f"no partition {name!r}; {nearest(name, cluster.partitions)}")
            continue
        yield from _check_partition(site, nodes, name, cluster.partitions[name], groups)
        yield from _check_nodes(site, nodes, name, cluster.nodes.get(name, []))
    yield _check_mpi(site, cluster)
    if site.container.engine == "pyxis" and not cluster.has_pyxis:
        yield SiteFinding("error", "container", "srun has no option --container-image: pyxis is not installed")
    yield from _check_config(cluster)


def partition_names(site: Site, cluster: Cluster) -> list[str]:
    """The partitions that a job may run in: those of the profile, or the cluster's default."""
    if site.slurm.partition:
        return site.slurm.partition.split(",")
    return [name for name, fields in cluster.partitions.items() if fields.get("Default") == "YES"]


def check_submission(site: Site, nodes: int) -> SiteFinding:
    """The answer of `sbatch --test-only` for a job with the profile's options. Nothing is submitted."""
    header = Header(site, "hpcai500-site-check", nodes, site.slurm.procs_per_node)
    answer = ask("sbatch", "--test-only", *sbatch_options(header), "--wrap=true")
    message = " ".join((answer.err or answer.out).split()).removeprefix("sbatch: ").removeprefix("error: ")
    return SiteFinding("error" if answer.code else "ok", "sbatch", message)


def check_paths(site: Site, data: Sequence[str], results: str) -> Iterator[SiteFinding]:
    """Whether a node can access the paths that a job needs, checked by a short job.

    `data` are the folders of data sets, and `results` is the results directory.
    """
    try:
        mark = tempfile.NamedTemporaryFile(dir=_existing(results), prefix=".hpcai500-site-check-")  # noqa: SIM115
    except OSError as error:
        yield SiteFinding("error", "results", f"{results}: {error.strerror}: choose a folder that you may write to")
        return
    with mark:
        looks = [
            Look("-e", mark.name, "results", f"{results} is not a file system that nodes share"),
            *_looks(site, data),
        ]
        triples = [word for number, look in enumerate(looks) for word in (look.test, look.path, str(number))]
        request = site.slurm
        options = {
            "partition": request.partition, "account": request.account, "qos": request.qos,
            "constraint": request.constraint, "reservation": request.reservation,
        }  # fmt: skip
        given = [f"--{name}={value}" for name, value in options.items() if value]
        job = ["srun", "--nodes=1", "--ntasks=1", "--time=2", f"--immediate={_WAIT_SEC}", "--chdir=/", *given]
        answer = ask(*job, "bash", "-c", _LOOK, "look", *triples, timeout_sec=_WAIT_SEC + 90)
    lines = answer.out.splitlines()
    if "looked" not in lines:
        why = last_line(answer.err, "no reason was given").removeprefix("srun: ").removeprefix("error: ")
        yield SiteFinding("warning", "paths", f"no node could be asked: {why}")
        return
    failed = [line for line in lines if line.isdigit()]
    for number in failed:
        yield SiteFinding("error", looks[int(number)].subject, looks[int(number)].complaint)
    if not failed:
        yield SiteFinding(
            "ok", "paths", f"{len(looks)} seen from a node: {', '.join(look.subject for look in looks)}"
        )


def _looks(site: Site, data: Sequence[str]) -> Iterator[Look]:
    python = site_python(site, sys.executable)
    if site.container.engine == "none" and "/" in python:
        yield Look("-x", python, "python", f"no program {python} on the nodes: set software.python")
    if site.container.image.startswith("/"):
        yield Look("-e", site.container.image, "image", f"no image {site.container.image} on the nodes")
    for folder in data:
        yield Look("-d", folder, "data", f"no folder {folder} on the nodes: set places.data")
    if site.places.staging:
        yield Look("-w", site.places.staging, "staging", f"{site.places.staging} cannot be written on the nodes")


def _existing(path: str) -> Path:
    """The nearest existing folder at or above `path`."""
    place = Path(path)
    return next(folder for folder in (place, *place.parents) if folder.is_dir())


def _check_partition(
    site: Site, nodes: int, name: str, fields: dict[str, str], groups: Sequence[str]
) -> Iterator[SiteFinding]:
    state = fields.get("State", "UP")
    if state != "UP":
        yield SiteFinding("error", "partition", f"{name} is {state.lower()}: choose another, or ask its operators")
    request = site.slurm
    for what, mine in (("Account", [request.account]), ("Qos", [request.qos]), ("Group", list(groups))):
        yield from _check_open(name, fields, what, [one for one in mine if one])
    limit = fields.get("MaxTime", "UNLIMITED")
    if (
        request.time
        and limit not in ("UNLIMITED", "INFINITE")
        and time_limit_sec(request.time) > time_limit_sec(limit)
    ):
        yield SiteFinding("error", "time", f"slurm.time {request.time} is above the {limit} that {name} allows")
    else:
        asked = request.time or f"the default, {fields.get('DefaultTime', 'NONE').replace('NONE', limit)}"
        yield SiteFinding("ok", "time", f"{asked}; {name} allows {limit}")
    most = fields.get("MaxNodes", "UNLIMITED")
    if most.isdigit() and nodes > int(most):
        yield SiteFinding("error", "nodes", f"{nodes} nodes are more than the {most} that {name} allows one job")
    if fields.get("PreemptMode") == "CANCEL":
        yield SiteFinding("warning", "preemption", f"{name} cancels what it preempts: runs are not requeued")


def _check_open(name: str, fields: dict[str, str], what: str, mine: list[str]) -> Iterator[SiteFinding]:
    """Whether a partition accepts one of `mine`: its user's groups, or the account or QOS of the profile."""
    allowed = fields.get(f"Allow{what}s", "ALL")
    denied = fields.get(f"Deny{what}s", "(null)").split(",")
    key = what.lower()
    if allowed != "ALL" and not set(mine) & set(allowed.split(",")):
        asked = f"{key} {', '.join(mine)}" if mine else f"no {key}"
        yield SiteFinding(
            "error" if mine else "warning", key, f"{name} is open only to {key}s {allowed}, not to {asked}"
        )
    elif set(mine) & set(denied):
        yield SiteFinding("error", key, f"{name} is closed to {key} {mine[0]}")


def _check_nodes(site: Site, nodes: int, name: str, all_nodes: list[Node]) -> Iterator[SiteFinding]:
    up = [node for node in all_nodes if node.is_up]
    if nodes > len(all_nodes):
        yield SiteFinding("error", "nodes", f"asks for {nodes} nodes; {name} has {len(all_nodes)}")
        return
    if nodes > len(up):
        yield SiteFinding(
            "error", "nodes", f"asks for {nodes} nodes; {len(up)} of the {len(all_nodes)} in {name} are up"
        )
    else:
        yield SiteFinding("ok", "nodes", f"{nodes} of the {len(up)} in {name} that are up, {len(all_nodes)} in all")

    def available(measure: Callable[[Node], int]) -> int:
        """The least that each of `nodes` nodes has, if the largest are chosen."""
        return sorted(map(measure, all_nodes), reverse=True)[nodes - 1]

    request = site.slurm
    kind = request.gpu_type
    types = {each for node in all_nodes for each in node.gpus if each}
    if kind and kind not in types:
        yield SiteFinding("error", "GPUs", f"{name} has no GPUs of type {kind!r}; {nearest(kind, types)}")
    else:
        num_gpus = available(lambda node: node.gpus.get(kind, 0) if kind else node.num_gpus)
        yield _fits("GPUs", "GPUs", request.gpus_per_node, num_gpus, nodes, name)
    cpus = request.procs_per_node * max(1, request.cpus_per_task)
    yield _fits("CPUs", "CPUs", cpus, available(lambda node: node.num_cpus), nodes, name)
    if request.memory not in ("", "0"):
        yield _fits(
            "memory", "MB of memory", _megabytes(request.memory), available(lambda node: node.memory_mb), nodes, name
        )


def _fits(subject: str, what: str, asked: int, available: int, nodes: int, partition: str) -> SiteFinding:
    if asked > available:
        message = f"asks for {asked:,} {what} per node; in {partition}, {nodes} at once have {available:,} each"
        return SiteFinding("error", subject, message)
    return SiteFinding("ok", subject, f"{asked:,} of {available:,} {what} per node")


def _check_mpi(site: Site, cluster: Cluster) -> SiteFinding:
    wanted = site.slurm.mpi
    if wanted not in cluster.mpi_plugins:
        return SiteFinding("error", "MPI", f"srun has no plugin {wanted!r}; it has {', '.join(cluster.mpi_plugins)}")
    return SiteFinding("ok", "MPI", f"{wanted}; srun has {', '.join(cluster.mpi_plugins)}")


def _check_config(cluster: Cluster) -> Iterator[SiteFinding]:
    size = int(cluster.config.get("MaxArraySize", "1001"))
    if size:
        yield SiteFinding(
            "ok", "arrays", f"an index is at most {size - 1}; seeds above it are written with an offset"
        )
    else:
        yield SiteFinding("error", "arrays", "MaxArraySize is 0: several seeds cannot be one array")
    if cluster.accounting_fault:
        forgets = cluster.config.get("MinJobAge", "300 sec")
        message = f"{cluster.accounting_fault}; how a job ended is forgotten after {forgets}"
        yield SiteFinding("warning", "accounting", message)


def _megabytes(memory: str) -> int:
    """Megabytes of Slurm's `240G`, rounded up; a plain number is in megabytes."""
    units = {"K": 1 / 1_024, "M": 1.0, "G": 1_024.0, "T": 1_048_576.0}
    if memory[-1] in units:
        return -int(-float(memory[:-1]) * units[memory[-1]] // 1)
    return int(memory)


def groups_of_user() -> list[str]:
    """The names of this user's groups, from `id`."""
    done = subprocess.run(
        ["id", "-Gn"], capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"}, check=False
    )
    return done.stdout.split()
