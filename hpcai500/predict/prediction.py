"""Prediction of a system's speed at sizes that nobody has run: never a measurement, and never ranked."""

import math
import statistics
from collections.abc import Sequence
from typing import Literal

from hpcai500.errors import InputError
from hpcai500.predict.batch_limits import BatchLimit, Reach, batch_limits, largest_batch, reach
from hpcai500.predict.calibration import USUAL_SPREAD, MeasuredSize
from hpcai500.predict.network import NetworkBand
from hpcai500.predict.step_model import StepTiming, is_input_bound, scenarios, timing
from hpcai500.score.record.valid_flops import valid_flops
from hpcai500.spec.models import Frozen
from hpcai500.text import counted

Scaling = Literal["recipe", "weak", "strong"]


class Band(Frozen):
    """Likely value, and the value if everything uncertain is at its best or at its worst."""

    low: float
    likely: float
    high: float


class Point(Frozen):
    """One size. Steps are optimiser steps; times and rates are of training, `total_sec` and FLOPS of the run."""

    nodes: int
    num_ranks: int
    global_batch_size: int
    samples_per_rank: int
    steps_per_epoch: int
    algorithm: str
    """All-reduce algorithm; empty for one rank."""
    compute_sec: float
    wait_sec: float
    """Waiting for data."""
    exposed_sec: float
    """Communication that the backward pass does not hide."""
    communication_sec: float
    """All communication."""
    step_sec: Band
    samples_per_sec: Band
    efficiency: Band
    """Samples per second per rank, over those of a single rank with the measured share.

    That rank waits for data as the measured one did.
    """
    epoch_sec: Band
    """Training and evaluation."""
    total_sec: Band
    flops: Band
    vflops: Band
    quality: float
    vflops_is_upper_bound: bool
    """Whether the batch exceeds what was measured or published, so that the quality may be lower."""
    note: str


class Check(Frozen):
    """A measured size other than the one that the prediction starts from."""

    nodes: int
    num_ranks: int
    is_calibrated: bool
    """Whether the network was fitted to its step: then a match proves nothing."""
    num_epochs: float
    """Epochs of both totals: as many as were measured."""
    measured_sec: float
    """Measured step time."""
    predicted_sec: float
    measured_total_sec: float
    predicted_total_sec: float
    measured_flops: float
    predicted_flops: float

    @property
    def error(self) -> float:
        """Relative error of the step: predicted over measured, minus 1."""
        return self.predicted_sec / self.measured_sec - 1


class Prediction(Frozen):
    kind: Literal["prediction, not a measurement"] = "prediction, not a measurement"
    system: str
    accelerator: str
    title: str
    problem: str
    backend: str
    precision: str
    ranks_per_node: int
    scaling: Scaling
    calibrated_ranks: int
    """Ranks of the measured run that the prediction starts from."""
    num_epochs: float
    """Epochs of every total: as many as that run trained until its end or target; median over seeds."""
    measured_step_sec: float
    spread: float
    """Spread of step times over epochs and seeds, relative to their median."""
    network: NetworkBand
    points: tuple[Point, ...]
    impossible: tuple[str, ...]
    """Impossible sizes, each with the reason."""
    checks: tuple[Check, ...]
    left_out: tuple[str, ...]
    """Unfinished runs, each with the reason."""
    assumptions: tuple[str, ...]


def predict(
    sizes: Sequence[MeasuredSize],
    nodes: Sequence[int],
    network: NetworkBand,
    *,
    ranks_per_node: int | None = None,
    scaling: Scaling = "recipe",
    left_out: Sequence[str] = (),
) -> Prediction:
    """Predict from the smallest of `sizes`, and compare the others with their prediction.

    Raises:
        InputError: if the network is too slow for the measured step, or all of `nodes` are impossible.
    """
    base = sizes[0]
    spec, identity = base.spec, base.result.identity
    limits = batch_limits(spec.workload.name, spec.problem)
    model = _Model(base, network, limits)
    per_node = ranks_per_node or spec.procs_per_node
    points: list[Point] = []
    impossible = []
    for count in nodes:
        try:
            points.append(model.point(count, per_node, model.global_batch(count * per_node, scaling)))
        except InputError as error:
            impossible.append(f"{counted(count, 'node')}: {error.message}")
    if not points:
        raise InputError(impossible[0], "give possible sizes")
    return Prediction(
        system=identity.system,
        accelerator=identity.accelerator,
        title=identity.title,
        problem=identity.problem,
        backend=identity.backend,
        precision=identity.precision,
        ranks_per_node=per_node,
        scaling=scaling,
        calibrated_ranks=spec.world_size,
        num_epochs=base.num_epochs,
        measured_step_sec=base.step_sec,
        spread=USUAL_SPREAD if base.spread is None else base.spread,
        network=network,
        points=tuple(points),
        impossible=tuple(impossible),
        checks=tuple(model.check(larger, network) for larger in sizes[1:]),
        left_out=tuple(left_out),
        assumptions=tuple(_assumptions(sizes, limits, per_node)),
    )


class _Model:
    """One measured size, from which every other is predicted."""

    def __init__(self, base: MeasuredSize, network: NetworkBand, limits: Sequence[BatchLimit]) -> None:
        self.base = base
        self.limits = limits
        self.scenarios = scenarios(base, network)
        self.off = 1.0
        """Predicted over measured FLOPS at the measured size: the error of medians, included in every band."""
        spec = base.spec
        again = self.point(spec.nodes, spec.procs_per_node, spec.settings.batch.global_batch_size)
        self.off = again.flops.likely / base.flops

    def check(self, larger: MeasuredSize, network: NetworkBand) -> Check:
        spec = larger.spec
        batch = spec.settings.batch.global_batch_size
        found = self.point(spec.nodes, spec.procs_per_node, batch, larger.measured_threads, larger.num_epochs)
        return Check(
            nodes=spec.nodes,
            num_ranks=spec.world_size,
            is_calibrated=spec.world_size in network.fitted_ranks,
            num_epochs=larger.num_epochs,
            measured_sec=larger.step_sec,
            predicted_sec=found.step_sec.likely,
            measured_total_sec=larger.total_sec,
            predicted_total_sec=found.total_sec.likely,
            measured_flops=larger.flops,
            predicted_flops=found.flops.likely,
        )

    def point(
        self, nodes: int, per_node: int, batch: int, threads: float | None = None, num_epochs: float | None = None
    ) -> Point:
        """Predict one size. By default a rank has its share of a node's cores, and epochs are as many as measured."""
        base, num_ranks = self.base, nodes * per_node
        share = batch // num_ranks
        timings = [timing(base, each, nodes, per_node, share, threads) for each in self.scenarios]
        likely = timings[1]
        problem = base.spec.settings.problem
        num_epochs = base.num_epochs if num_epochs is None else num_epochs
        steps = problem.num_train_samples // batch
        epochs = [steps * timing.step_sec + self.eval_sec(num_ranks) for timing in timings]
        totals = [
            num_epochs * sec + self.first_sec(steps * timing.step_sec) + base.other_sec
            for sec, timing in zip(epochs, timings, strict=True)
        ]
        reached = self.reach(batch)
        assert base.result.flops is not None
        work = base.result.flops.per_sample * batch * steps * num_epochs
        flops = [work / sec for sec in totals]
        vflops = [valid_flops(f, reached.quality, problem.target_quality, problem.penalty_exponent) for f in flops]
        alone = base.spec.samples_per_rank / self.alone().step_sec
        return Point(
            nodes=nodes,
            num_ranks=num_ranks,
            global_batch_size=batch,
            samples_per_rank=share,
            steps_per_epoch=steps,
            algorithm=likely.algorithm,
            compute_sec=likely.compute_sec,
            wait_sec=likely.wait_sec,
            exposed_sec=likely.exposed_sec,
            communication_sec=likely.busy_sec,
            step_sec=_band([timing.step_sec for timing in timings]),
            samples_per_sec=_band([batch / timing.step_sec for timing in timings]),
            efficiency=_band([min(1.0, share / timing.step_sec / alone) for timing in timings]),
            epoch_sec=_band(epochs),
            total_sec=_band(totals, self.off),
            flops=_band(flops, 1 / self.off),
            vflops=_band(vflops, 1 / self.off),
            quality=reached.quality,
            vflops_is_upper_bound=not reached.is_known,
            note=reached.note,
        )

    def alone(self) -> StepTiming:
        """Step of a single rank with the measured share."""
        return timing(self.base, self.scenarios[1], 1, 1, self.base.spec.samples_per_rank)

    def global_batch(self, num_ranks: int, scaling: Scaling) -> int:
        """Global batch. Weak: measured share per rank. Strong: measured batch. Recipe: weak, up to the largest good.

        Raises:
            InputError: if there are too few samples for so many ranks.
        """
        spec = self.base.spec
        settings = spec.settings
        measured, most = settings.batch.global_batch_size, settings.problem.num_train_samples
        good = largest_batch(self.limits, spec.optimizer_name, measured, settings.problem.target_quality)
        weak = spec.samples_per_rank * num_ranks
        wanted = {
            "weak": weak,
            "strong": measured,
            "recipe": min(weak, good),
        }[scaling]
        batch = max(1, min(wanted, most) // num_ranks) * num_ranks
        if batch > most:
            raise InputError(f"{num_ranks:,} ranks, but {most:,} training samples")
        if scaling == "strong" and batch > measured:
            raise InputError(f"{num_ranks:,} ranks share a batch of {measured:,}")
        if scaling == "weak" and batch < weak:
            raise InputError(f"a batch of {weak:,}, but {most:,} training samples")
        return batch

    def reach(self, batch: int) -> Reach:
        problem, settings = self.base.spec.settings.problem, self.base.spec.settings
        return reach(
            batch,
            self.limits,
            self.base.spec.optimizer_name,
            measured=settings.batch.global_batch_size,
            achieved=statistics.fmean(self.base.qualities),
            target=problem.target_quality,
        )

    def eval_sec(self, num_ranks: int) -> float:
        """Evaluation time per epoch: the measured time, divided; no rank evaluates less than one sample."""
        spec = self.base.spec
        samples = spec.settings.problem.num_eval_samples
        sec_per_sample = self.base.eval_sec / math.ceil(samples / spec.world_size)
        return sec_per_sample * math.ceil(samples / num_ranks)

    def first_sec(self, train_sec: float) -> float:
        """Extra time of the first epoch: as measured, or in proportion to `train_sec` if it was faster."""
        base = self.base
        if base.first_sec >= 0:
            return base.first_sec
        return base.first_sec * train_sec / (base.step_sec * base.spec.steps_per_epoch)


def _band(values: Sequence[float], off: float = 1.0) -> Band:
    """Band of the best, likely and worst value, extended by the factor `off`."""
    return Band(low=min(values) * min(1.0, off), likely=values[1], high=max(values) * max(1.0, off))


def _assumptions(sizes: Sequence[MeasuredSize], limits: Sequence[BatchLimit], per_node: int) -> list[str]:
    """Assumptions of this prediction, in addition to those of docs/prediction.md."""
    base = sizes[0]
    lines = _about_epochs(sizes)
    if base.spread is None:
        lines.append(f"a single epoch shows no spread: step times are assumed to vary by {USUAL_SPREAD:.1%}")
    if base.wait_share is None:
        lines.append("the run did not record its waiting for data: input is assumed never to limit speed")
    elif is_input_bound(base):
        lines.append(
            f"the run waited for data {base.wait_share:.0%} of a step although loaders read ahead: input limits "
            "speed, and each rank's input is assumed to stay as fast"
        )
    else:
        lines.append(f"waiting for data, {base.wait_share:.1%} of the measured step, grows only with a rank's share")
    lines += _about_threads(sizes, per_node)
    if base.first_sec > 0.01 * base.total_sec:
        lines.append(f"the first epoch took {base.first_sec:.3g} s longer than others: every total includes as much")
    elif base.first_sec < -0.01 * base.total_sec:
        faster = -base.first_sec / (base.step_sec * base.spec.steps_per_epoch)
        lines.append(f"the first epoch was {faster:.0%} shorter than others: assumed at every size")
    if not base.knows_layers:
        lines.append(
            "the run did not record the parameters of each layer: they are spread evenly over the backward pass"
        )
    if not limits:
        lines.append("no larger batches are published: quality is known only at the measured batch")
    if base.result.unranked:
        lines.append(f"the measured run cannot be ranked: {', '.join(base.result.unranked)}")
    return lines


def _about_epochs(sizes: Sequence[MeasuredSize]) -> list[str]:
    base = sizes[0]
    planned = base.spec.settings.problem.num_epochs
    lines = []
    if base.num_epochs < planned:
        target = ", up to its target" if base.spec.stops_at_target else ""
        lines.append(f"the run trained {base.num_epochs:g} of {planned} epochs{target}: every total is for as many")
    return lines + [
        f"{each.spec.world_size} measured ranks trained {counted(each.num_epochs, 'epoch')}: what their total and "
        "FLOPS are compared with is for as many"
        for each in sizes[1:]
        if each.num_epochs != base.num_epochs
    ]


def _about_threads(sizes: Sequence[MeasuredSize], per_node: int) -> list[str]:
    base = sizes[0]
    measured, threads = base.measured_threads, base.threads_at(per_node)
    if measured is None or threads is None:
        return []
    law = f"on {counted(measured, 'thread')}; computation is assumed proportional to 1 / threads"
    lines = [_oversubscribed(each) for each in sizes if each.is_oversubscribed]
    lines += [
        f"{each.spec.world_size} measured ranks had {counted(each.measured_threads, 'thread')} each, "
        f"the run to start from is {law}"
        for each in sizes[1:]
        if each.measured_threads and each.measured_threads != measured
    ]
    if threads < measured:
        lines.append(f"{per_node} ranks share a node's cores, {threads:.3g} each, measured {law}")
    elif threads > measured:
        lines.append(f"a rank predicted has {counted(threads, 'thread')}, measured {law}")
    elif per_node < base.spec.procs_per_node:
        lines.append(f"a rank keeps its {counted(threads, 'thread')}, though fewer ranks than measured share a node")
    return lines


def _oversubscribed(sized: MeasuredSize) -> str:
    spec = sized.spec
    assert sized.threads is not None
    assert sized.cores is not None
    return (
        f"oversubscribed: the run on {counted(spec.world_size, 'rank')} had "
        f"{counted(sized.threads * spec.procs_per_node, 'thread')} on {counted(sized.cores, 'core')} of a node; "
        "each thread is counted as a core; what follows from it, such as a fitted link, is doubtful"
    )
