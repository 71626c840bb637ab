"""What measured runs tell of a step: its computation, its spread, and the network where nothing else tells of it."""

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hpcai500.errors import InputError
from hpcai500.events.reader import first, read_events
from hpcai500.events.vocabulary import Key
from hpcai500.score.collection import newest_result
from hpcai500.score.communication import Gradient, Link, Network, Sync, all_reduce, gradients, synchronize
from hpcai500.score.folders import run_folders
from hpcai500.score.result import Result
from hpcai500.spec.run import RunSpec, read_run

BACKWARD = 2 / 3
"""Of a step's computation: the backward pass needs twice the FLOPs of the forward pass."""

USUAL_SPREAD = 0.043
"""Of ranks' step times, where a single epoch tells of none; and the least that the worst case takes.

It explains an efficiency that Horovod published for hidden communication (benchmarks/predict_published.py).
"""

_SAME = ("system", "accelerator", "workload", "problem", "backend", "precision", "code_digest")


class Sized(NamedTuple):
    """All runs of one size."""

    spec: RunSpec
    result: Result
    """Of the first seed."""
    step_sec: float
    """Median over epochs and seeds; the first epoch of a run counts only where it is the only one."""
    spread: float | None
    """Standard deviation over mean of the same."""
    wait_share: float | None
    """Of the step: waiting for data; None where the runs did not measure it."""
    qualities: tuple[float, ...]
    grads: tuple[Gradient, ...]
    knows_layers: bool


class Step(NamedTuple):
    """One optimiser step of one rank, without the others."""

    compute_sec: float
    samples: int
    micro_batches: int
    grads: tuple[Gradient, ...]
    backend: str
    wire_bytes: float

    def sync(self, nodes: int, ranks_per_node: int, network: Network) -> Sync:
        """With others; the backward pass of the last micro-batch hides what it can."""
        return synchronize(
            self.grads,
            BACKWARD * self.compute_sec / self.micro_batches,
            lambda num_bytes: all_reduce(num_bytes, nodes, ranks_per_node, network),
            backend=self.backend,
            wire_bytes=self.wire_bytes,
        )


def read_sizes(paths: Iterable[Path]) -> list[Sized]:
    """The runs in `paths` (folders of runs, or of several) by size, the smallest first.

    Raises:
        InputError: for a run that has not succeeded, runs of different systems or experiments, or none at all.
    """
    runs: dict[int, list[tuple[RunSpec, Result, Path]]] = {}
    for folder in _folders(paths):
        spec = read_run(folder / "run.json")
        try:
            result = newest_result(folder / "result.json")
        except InputError as error:
            raise InputError(f"{folder}: {error.message}", error.hint) from error
        if result.status != "success":
            raise InputError(
                f"{folder}: status {result.status}: only a finished run tells of a step's time",
                "--resume finishes a preempted run" if result.status == "preempted" else "run it again",
            )
        runs.setdefault(spec.world_size, []).append((spec, result, folder))
    everything = [run for members in runs.values() for run in members]
    _require_same(everything)
    return [_sized(members) for _, members in sorted(runs.items())]


def _folders(paths: Iterable[Path]) -> list[Path]:
    found = []
    for path in paths:
        if not path.exists():
            raise InputError(f"{path}: no such file or folder", "name the folder of a finished run")
        found += run_folders(path)
    return list(dict.fromkeys(found))


def _require_same(runs: Sequence[tuple[RunSpec, Result, Path]]) -> None:
    one, reference, _ = runs[0]
    for spec, result, folder in runs[1:]:
        for field in _SAME:
            here, there = getattr(result.identity, field), getattr(reference.identity, field)
            if here != there:
                raise InputError(
                    f"{folder}: {field} is {here!r}, elsewhere {there!r}: one prediction is of one system and code",
                    "name runs that differ in size and seed alone",
                )
        if spec.world_size == one.world_size and result.identity.experiment_digest != (
            reference.identity.experiment_digest
        ):
            raise InputError(f"{folder}: another experiment of the same size", "name runs of one experiment a size")


def _sized(members: Sequence[tuple[RunSpec, Result, Path]]) -> Sized:
    spec, result, folder = members[0]
    times, waits = [], []
    for _, each, _ in members:
        for epoch in each.epochs[1:] or each.epochs:
            times.append(epoch.train_sec / spec.steps_per_epoch)
            waits.append(epoch.data_wait_sec)
    known = [wait for wait in waits if wait is not None]
    total = sum(times) * spec.steps_per_epoch
    grads, knows_layers = _gradients(folder)
    return Sized(
        spec=spec,
        result=result,
        step_sec=statistics.median(times),
        spread=statistics.stdev(times) / statistics.fmean(times) if len(times) > 1 else None,
        wait_share=sum(known) / total if len(known) == len(waits) else None,
        qualities=tuple(each.score.achieved_quality for _, each, _ in members if each.score),
        grads=tuple(grads),
        knows_layers=knows_layers,
    )


def _gradients(folder: Path) -> tuple[list[Gradient], bool]:
    log = folder / "events.log"
    event = first(read_events(log), Key.MODEL) if log.exists() else None
    structure: dict[str, Any] = event.value if event else {}
    if "num_parameters" not in structure:
        raise InputError(f"{log}: no structure of the model", "predict from a run of this version of hpcai500")
    if "layer_parameters" in structure:
        flops = structure["layer_flops"]
        return gradients(
            [(count, flops.get(name, 0.0)) for name, count in structure["layer_parameters"].items()]
        ), True
    pieces = structure.get("num_tensors", 1)
    return gradients([(structure["num_parameters"] / pieces, 1.0)] * pieces), False


def as_step(sized: Sized, compute_sec: float) -> Step:
    spec = sized.spec
    return Step(
        compute_sec=compute_sec,
        samples=spec.samples_per_rank,
        micro_batches=spec.samples_per_rank // spec.micro_batch_size,
        grads=sized.grads,
        backend=spec.backend,
        wire_bytes=0.5 if spec.settings.execution.gradient_compression == "fp16" else 1.0,
    )


def compute_sec(sized: Sized, network: Network) -> float:
    """The measured step less what is predicted to stand exposed in it.

    Raises:
        InputError: if the network alone would take longer than the measured step.
    """
    measured, spec = sized.step_sec * (1 - (sized.wait_share or 0.0)), sized.spec

    def predicted(compute: float) -> float:
        return compute + as_step(sized, compute).sync(spec.nodes, spec.procs_per_node, network).exposed_sec

    if spec.world_size == 1:
        return measured
    if predicted(0.0) > measured:
        raise InputError(
            f"the network as given would need {predicted(0.0):.3g} s a step on {spec.nodes} x {spec.procs_per_node} "
            f"ranks, but the measured step took {measured:.3g} s",
            "give a faster network, or predict from a run of one rank",
        )
    return bisect(predicted, measured, 0.0, measured)


def fit_bandwidth(base: Sized, larger: Sized, latency_sec: float, within: Link | None) -> Network:
    """The network whose bandwidth makes `larger`'s step come out as measured, from `base`'s single rank.

    Without `within`, links within a node are those between nodes.

    Raises:
        InputError: if no bandwidth does: the larger run lost nothing, or more than latency and bandwidth explain.
    """
    spec = larger.spec
    compute = base.step_sec * spec.samples_per_rank / base.spec.samples_per_rank

    def with_bandwidth(seconds_per_byte: float) -> Network:
        link = Link(latency_sec=latency_sec, bytes_per_sec=1 / seconds_per_byte)
        return Network(between=link, within=within or link)

    def predicted(seconds_per_byte: float) -> float:
        sync = as_step(larger, compute).sync(spec.nodes, spec.procs_per_node, with_bandwidth(seconds_per_byte))
        return compute + sync.exposed_sec

    low, high = 1e-13, 1e-5
    if base.spec.world_size > 1 or not predicted(low) < larger.step_sec < predicted(high):
        raise InputError(
            f"no bandwidth explains {larger.step_sec:.3g} s a step on {spec.world_size} ranks beside "
            f"{base.step_sec:.3g} s on {base.spec.world_size}",
            "give --bandwidth-gb-s or --network FILE; or one run of a single rank among the runs",
        )
    return with_bandwidth(bisect(predicted, larger.step_sec, low, high))


def bisect(rising: Callable[[float], float], target: float, low: float, high: float) -> float:
    """Where `rising` meets `target` between `low` and `high`, to a millionth of the larger."""
    for _ in range(100):
        middle = math.sqrt(low * high) if low > 0 else (low + high) / 2
        low, high = (middle, high) if rising(middle) < target else (low, middle)
        if high - low <= 1e-7 * high:
            break
    return high
