"""A short training run on every node by itself, and on all together: speed, scaling, and the same loss everywhere."""

import os
import subprocess
import sys
from collections.abc import Iterator

from hpcai500.errors import RankError
from hpcai500.events.payloads import EpochReport
from hpcai500.events.reader import read_events
from hpcai500.events.typed import payloads
from hpcai500.launch.process import run_local
from hpcai500.spec.levels import Level
from hpcai500.spec.record import SYNTHETIC
from hpcai500.spec.run import RunSpec, resolve
from hpcai500.system.devices import num_gpus
from hpcai500.validate.children import run_children
from hpcai500.validate.measurement import Measurement
from hpcai500.validate.place import Found, Place

_STEPS = {1: 3, 2: 10, 3: 30}
"""By level; the first epoch of these warms up, the second counts."""
_EPOCHS = 2
_BATCH_A_RANK = 16


def run(place: Place) -> Iterator[Found]:
    yield from run_children(place, "training", [("alone",)])
    if len(place.members) < 2:
        return
    members = list(place.members)
    if place.leads:
        together_spec(place, members).write()
    place.step("training", "together")
    place.wait("training: together")
    if place.members == members:
        yield from run_children(place, "training", [("together", ",".join(members))])


def measure(place: Place, company: str, names: str = "") -> Iterator[Found]:
    """In a process of its own: the node's ranks of one run, and what it achieved."""
    if company == "alone":
        spec = short_spec(place, 1, place.node, "local")
        spec.write()
        run_local(spec, quiet=True)
        yield from _figures(spec, "alone", (place.node,))
        return
    members = names.split(",")
    spec = together_spec(place, members)
    index = members.index(place.node)
    _run_ranks(spec, index)
    if index == 0:
        yield from _figures(spec, "together", tuple(sorted(members)))


def together_spec(place: Place, members: list[str]) -> RunSpec:
    return short_spec(place, len(members), "together", "srun")


def short_spec(place: Place, nodes: int, name: str, launcher: str) -> RunSpec:
    """A few steps of Image Classification's mini problem on synthetic data, in fixed order and deterministic: the
    batch grows with the number of ranks, so that each has the same work.
    """
    procs = max(1, num_gpus())
    batch = _BATCH_A_RANK * procs * nodes
    overrides = {
        "problem.num_epochs": _EPOCHS,
        "problem.num_train_samples": batch * _STEPS[place.plan.level],
        "problem.num_eval_samples": batch,
        "batch.global_batch_size": batch,
        "batch.micro_batch_size": _BATCH_A_RANK,
        "execution.deterministic": True,
    }
    return resolve(
        "image_classification",
        problem="mini",
        level=Level.FREE,
        seed=0,
        overrides=overrides,
        unranked=True,
        launcher=launcher,
        nodes=nodes,
        procs_per_node=procs,
        system=place.plan.system,
        data=SYNTHETIC,
        output=str(place.folder / "training" / name),
    )


def _figures(spec: RunSpec, company: str, nodes: tuple[str, ...]) -> Iterator[Measurement]:
    """Of the last epoch: samples a second of one node, and, where nodes ran alone, the loss to its last digit."""
    last = payloads(read_events(spec.folder / "events.log"), EpochReport)[-1].value
    rate = last.num_samples / last.train_sec / spec.nodes
    yield Measurement(
        stage="training", metric=f"{company}_samples_per_sec", unit="1/s", value=rate, better="higher", nodes=nodes,
        detail="of one node",
    )  # fmt: skip
    yield Measurement(
        stage="training",
        metric=f"{company}_loss",
        unit="",
        value=repr(last.train_loss),
        better="same",
        nodes=nodes,
    )


def _run_ranks(spec: RunSpec, node_index: int) -> None:
    """This node's ranks of a run over several nodes, told of their place as srun tells it.

    Raises:
        RankError: if one fails.
    """
    count = spec.procs_per_node
    shared = {
        "SLURM_STEP_NUM_TASKS": str(spec.world_size),
        "SLURM_STEP_TASKS_PER_NODE": f"{count}(x{spec.nodes})",
        "SLURM_NODEID": str(node_index),
        "SLURM_JOB_ID": os.environ.get("SLURM_JOB_ID", "0"),
        "SLURM_STEP_ID": os.environ.get("SLURM_STEP_ID", "0"),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // count))),
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    }
    command = [sys.executable, "-m", "hpcai500.train.worker", str(spec.folder / "run.json")]
    ranks = [
        subprocess.Popen(
            command,
            env={
                **os.environ,
                **shared,
                "SLURM_PROCID": str(node_index * count + local),
                "SLURM_LOCALID": str(local),
            },
        )
        for local in range(count)
    ]
    codes = [rank.wait() for rank in ranks]
    if failed := [code for code in codes if code]:
        raise RankError(f"{len(failed)} of {count} ranks of the run on all nodes ended with exit code {failed[0]}")
