"""What a system would do at sizes that nobody has run: a prediction, never a measurement, and never ranked."""

import math
import statistics
from collections.abc import Sequence
from typing import Literal, NamedTuple

from hpcai500.errors import InputError
from hpcai500.score.batch_limits import BatchLimit, Reach, batch_limits, largest_batch, reach
from hpcai500.score.calibration import USUAL_SPREAD, Sized, as_step, compute_sec
from hpcai500.score.communication import Network
from hpcai500.score.metric import valid_flops
from hpcai500.score.network import NetworkBand
from hpcai500.spec.models import Frozen

Scaling = Literal["recipe", "weak", "strong"]

_WAITS = 0.01
"""Of a step: a smaller share of waiting for data is noise, not a limit of the input."""

_FIXED = (0.0, 0.11, 0.33)
"""Best, likely and worst part of a micro-batch's time that does not shrink with it.

Two batches of 32 images take 7 to 12 % longer than one of 64 on a P100 (TensorFlow benchmarks, May 2017, 4 models):
what does not shrink. The worst is three times the likely one.
"""


class Band(Frozen):
    """`likely`, and what it is when everything uncertain is at its best and at its worst."""

    low: float
    likely: float
    high: float


class Point(Frozen):
    """One size. Steps are of one optimiser step; times and rates are of training but for `total_sec` and FLOPS."""

    nodes: int
    num_ranks: int
    global_batch_size: int
    samples_per_rank: int
    steps_per_epoch: int
    algorithm: str
    """Of all-reduce; empty for one rank."""
    compute_sec: float
    exposed_sec: float
    """Communication that the backward pass does not hide."""
    communication_sec: float
    """All of it."""
    input_sec: float | None
    """The least that the input pipeline lets a step take; null where it was not seen to limit."""
    step_sec: Band
    samples_per_sec: Band
    efficiency: Band
    """Samples a second of each rank, over those of one rank without others and with the measured share."""
    epoch_sec: Band
    """Training and evaluation."""
    total_sec: Band
    flops: Band
    vflops: Band
    quality: float
    vflops_is_upper_bound: bool
    """The batch leaves the range that measurement and literature reach, so that the quality may be lower."""
    note: str


class Check(Frozen):
    """A measured size that was not used to calibrate."""

    nodes: int
    num_ranks: int
    measured_sec: float
    predicted_sec: float

    @property
    def error(self) -> float:
        """Predicted over measured, less 1."""
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
    """Ranks of the measured run that it starts from."""
    measured_step_sec: float
    spread: float
    """Of step times: standard deviation over mean."""
    network: NetworkBand
    points: tuple[Point, ...]
    impossible: tuple[str, ...]
    """Sizes that cannot be, each with the reason."""
    checks: tuple[Check, ...]
    assumptions: tuple[str, ...]


class _Scenario(NamedTuple):
    network: Network
    compute_sec: float
    """Of the measured share, without stragglers."""
    spread: float
    """Of ranks' step times, which the slowest of many exceeds the mean by some times."""
    fixed: float
    """The part of a micro-batch's time that does not shrink with it."""


class _Timing(NamedTuple):
    compute_sec: float
    exposed_sec: float
    busy_sec: float
    step_sec: float
    algorithm: str


def predict(
    sizes: Sequence[Sized],
    nodes: Sequence[int],
    network: NetworkBand,
    *,
    ranks_per_node: int | None = None,
    scaling: Scaling = "recipe",
) -> Prediction:
    """From the smallest of `sizes`; the others are held against what is predicted for them.

    Raises:
        InputError: if the network is too slow for the measured step.
    """
    base = sizes[0]
    spec, identity = base.spec, base.result.identity
    limits = batch_limits(spec.workload.name, spec.problem)
    model = _Model(base, network)
    per_node = ranks_per_node or spec.procs_per_node
    points: list[Point] = []
    impossible = []
    for count in nodes:
        try:
            points.append(model.point(count, per_node, scaling, limits))
        except InputError as error:
            impossible.append(f"{count} nodes: {error.message}")
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
        measured_step_sec=base.step_sec,
        spread=model.spread,
        network=network,
        points=tuple(points),
        impossible=tuple(impossible),
        checks=tuple(model.check(larger) for larger in sizes[1:]),
        assumptions=tuple(_assumptions(base, limits)),
    )


class _Model:
    """One measured size, from which every other follows."""

    def __init__(self, base: Sized, network: NetworkBand) -> None:
        self.base = base
        self.spread = USUAL_SPREAD if base.spread is None else base.spread
        likely = compute_sec(base, network.likely)
        # Where the measured run communicated, a slower network leaves less of its step to computation.
        best = compute_sec(base, network.fast)
        try:
            slow, worst = network.slow, compute_sec(base, network.slow)
        except InputError:  # slower than the measured step allows
            slow, worst = network.likely, likely
        self.likely = _Scenario(network.likely, likely, self.spread, _FIXED[1])
        self.best = _Scenario(network.fast, best * (1 - min(self.spread, 0.5)), 0.0, _FIXED[0])
        self.worst = _Scenario(slow, worst * (1 + self.spread), max(2 * self.spread, USUAL_SPREAD), _FIXED[2])

    def timing(self, scenario: _Scenario, nodes: int, per_node: int, share: int) -> _Timing:
        """One step of `share` samples a rank."""
        spec = self.base.spec
        num_ranks = nodes * per_node
        micro_batches = math.ceil(share / spec.micro_batch_size)
        part = share / micro_batches / spec.micro_batch_size
        whole = scenario.compute_sec * spec.micro_batch_size / spec.samples_per_rank
        sec = whole * micro_batches * (scenario.fixed + (1 - scenario.fixed) * part)
        slowest = slowest_of(num_ranks) - slowest_of(spec.world_size)
        compute = sec * max(0.0, 1 + scenario.spread * slowest)
        step = as_step(self.base, sec)._replace(samples=share, micro_batches=micro_batches)
        sync = step.sync(nodes, per_node, scenario.network)
        floor = self.input_sec(share) or 0.0
        return _Timing(
            compute, sync.exposed_sec, sync.busy_sec, max(compute + sync.exposed_sec, floor), sync.algorithm
        )

    def input_sec(self, share: int) -> float | None:
        """What the input pipeline of one rank needs for `share` samples, where the measured step waited for it."""
        if (self.base.wait_share or 0.0) <= _WAITS:
            return None
        return self.base.step_sec * share / self.base.spec.samples_per_rank

    def check(self, larger: Sized) -> Check:
        spec = larger.spec
        timing = self.timing(self.likely, spec.nodes, spec.procs_per_node, spec.samples_per_rank)
        return Check(
            nodes=spec.nodes,
            num_ranks=spec.world_size,
            measured_sec=larger.step_sec,
            predicted_sec=timing.step_sec,
        )

    def point(self, nodes: int, per_node: int, scaling: Scaling, limits: Sequence[BatchLimit]) -> Point:
        """Raises: InputError, where there are too few samples for so many ranks."""
        base = self.base
        settings, num_ranks = base.spec.settings, nodes * per_node
        batch = self.global_batch(num_ranks, scaling, limits)
        share = batch // num_ranks
        timings = [self.timing(each, nodes, per_node, share) for each in (self.best, self.likely, self.worst)]
        likely = timings[1]
        problem = settings.problem
        steps = problem.num_train_samples // batch
        eval_sec, other_sec = self.eval_sec(num_ranks), self.other_sec()
        epochs = [steps * timing.step_sec + eval_sec for timing in timings]
        totals = [problem.num_epochs * sec + other_sec for sec in epochs]
        reached = self.reach(batch, limits)
        assert base.result.flops is not None
        work = base.result.flops.per_sample * batch * steps * problem.num_epochs
        flops = [work / sec for sec in totals]
        vflops = [valid_flops(f, reached.quality, problem.target_quality, problem.penalty_exponent) for f in flops]
        alone = base.spec.samples_per_rank / self.timing(self.likely, 1, 1, base.spec.samples_per_rank).compute_sec
        return Point(
            nodes=nodes,
            num_ranks=num_ranks,
            global_batch_size=batch,
            samples_per_rank=share,
            steps_per_epoch=steps,
            algorithm=likely.algorithm,
            compute_sec=likely.compute_sec,
            exposed_sec=likely.exposed_sec,
            communication_sec=likely.busy_sec,
            input_sec=self.input_sec(share),
            step_sec=_band([timing.step_sec for timing in timings]),
            samples_per_sec=_band([batch / timing.step_sec for timing in timings]),
            efficiency=_band([min(1.0, share / timing.step_sec / alone) for timing in timings]),
            epoch_sec=_band(epochs),
            total_sec=_band(totals),
            flops=_band(flops),
            vflops=_band(vflops),
            quality=reached.quality,
            vflops_is_upper_bound=not reached.is_known,
            note=reached.note,
        )

    def global_batch(self, num_ranks: int, scaling: Scaling, limits: Sequence[BatchLimit]) -> int:
        """Weak: the measured share a rank. Strong: the measured batch. Recipe: weak up to the largest good one."""
        spec = self.base.spec
        settings = spec.settings
        measured, most = settings.batch.global_batch_size, settings.problem.num_train_samples
        good = largest_batch(limits, settings.optimizer.name, measured, settings.problem.target_quality)
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

    def reach(self, batch: int, limits: Sequence[BatchLimit]) -> Reach:
        problem, settings = self.base.spec.settings.problem, self.base.spec.settings
        return reach(
            batch,
            limits,
            settings.optimizer.name,
            measured=settings.batch.global_batch_size,
            achieved=statistics.fmean(self.base.qualities),
            target=problem.target_quality,
        )

    def eval_sec(self, num_ranks: int) -> float:
        """Of one epoch: the measured time, shared out; no rank evaluates less than one sample."""
        result, spec = self.base.result, self.base.spec
        assert result.time is not None
        samples = spec.settings.problem.num_eval_samples
        of_rank = result.time.eval_sec / len(result.epochs) / math.ceil(samples / spec.world_size)
        return of_rank * math.ceil(samples / num_ranks)

    def other_sec(self) -> float:
        """Of the run: neither training nor evaluation; taken to stay as it was."""
        time = self.base.result.time
        assert time is not None
        return max(0.0, time.total_sec - time.train_sec - time.eval_sec)


def slowest_of(num_ranks: int) -> float:
    """The expected largest of so many standard normal numbers (Blom 1958): the step waits for the slowest rank."""
    return statistics.NormalDist().inv_cdf((num_ranks - 0.375) / (num_ranks + 0.25))


def _band(values: Sequence[float]) -> Band:
    return Band(low=min(values), likely=values[1], high=max(values))


def _assumptions(base: Sized, limits: Sequence[BatchLimit]) -> list[str]:
    """What the prediction takes for granted, beyond what docs/prediction.md says of every one."""
    said = []
    if base.spread is None:
        said.append(f"a single epoch tells of no spread: step times are taken to vary by {USUAL_SPREAD:.1%}")
    if base.wait_share is None:
        said.append("the run does not say how long it waited for data: input is taken never to limit")
    elif base.wait_share <= _WAITS:
        said.append("the run did not wait for data: input is taken never to limit")
    else:
        said.append(f"the run waited for data {base.wait_share:.0%} of a step: input a rank stays as fast as it was")
    if not base.knows_layers:
        said.append("the run does not say where its parameters lie: they are spread evenly over the backward pass")
    if not limits:
        said.append("nothing is published of larger batches: quality is known at the measured batch alone")
    if base.result.unranked:
        said.append(f"the measured run is no result that ranks: {', '.join(base.result.unranked)}")
    return said
