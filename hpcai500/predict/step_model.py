"""The time of one step at any size, from one measured size: computation, waiting for data, exposed communication."""

import math
import statistics
from typing import NamedTuple

from hpcai500.errors import InputError
from hpcai500.predict.calibration import USUAL_SPREAD, MeasuredSize, as_step, bisect
from hpcai500.predict.communication import Link, Network
from hpcai500.predict.network import LinkBand, NetworkBand, Range

INPUT_LIMITS = 0.02
"""Share of a step spent waiting for data above which input limits speed, if loaders read ahead."""

_FIXED = (0.0, 0.11, 0.33)
"""Best, likely and worst fixed part of a micro-batch's time, which does not shrink with its size.

Two batches of 32 images take 7 to 12 % longer than one of 64 on a P100 (TensorFlow benchmarks, May 2017, 4 models).
The worst is three times the likely one.
"""

_THREADS = (0.75, 1.0, 1.25)
"""Best, likely and worst exponent of 1 / threads in the time of computation: an assumption.

With more threads than measured, the best exponent is as far above 1 as it is below 1 with fewer.
"""

_LEAST = 0.5
"""Least part of the measured computation that remains if fewer ranks than measured wait for the slowest."""

NO_LIMIT, _SLOWEST = 1e13, 1e5
"""Range of a fitted bandwidth in bytes per second. At the upper end the step gives no upper limit."""


class Scenario(NamedTuple):
    network: Network
    compute_sec: float
    """Time for the measured share on the measured threads, including the slowest of the measured ranks."""
    spread: float
    """Relative standard deviation of ranks' step times; the slowest of many ranks exceeds the mean by a multiple."""
    fixed: float
    """Part of a micro-batch's time that does not shrink with its size."""
    thread_power: float


class StepTiming(NamedTuple):
    compute_sec: float
    wait_sec: float
    """Waiting for data."""
    exposed_sec: float
    busy_sec: float
    step_sec: float
    """Computation, waiting and exposed communication."""
    algorithm: str


def rank_spread(base: MeasuredSize) -> float:
    """Spread of ranks' step times, at most the usual one: one slow epoch is no evidence about single ranks."""
    return USUAL_SPREAD if base.spread is None else min(base.spread, USUAL_SPREAD)


def is_input_bound(base: MeasuredSize) -> bool:
    """Whether the measured steps waited for data although loaders read ahead."""
    return bool(base.loader_processes) and (base.wait_share or 0.0) > INPUT_LIMITS


def timing(
    base: MeasuredSize, scenario: Scenario, nodes: int, per_node: int, share: int, threads: float | None = None
) -> StepTiming:
    """Time of one step of `share` samples per rank. By default a rank has the threads that `base` would have."""
    spec = base.spec
    num_ranks = nodes * per_node
    micro_batches = math.ceil(share / spec.micro_batch_size)
    part = share / micro_batches / spec.micro_batch_size
    whole = scenario.compute_sec * spec.micro_batch_size / spec.samples_per_rank
    sec = whole * micro_batches * (scenario.fixed + (1 - scenario.fixed) * part)
    threads = threads or base.threads_at(per_node)
    if base.measured_threads and threads:
        slower = base.measured_threads / threads
        sec *= slower ** (scenario.thread_power if slower > 1 else 2 - scenario.thread_power)
    slowest = slowest_of(num_ranks) - slowest_of(spec.world_size)
    compute = sec * max(_LEAST, 1 + scenario.spread * slowest)
    step = as_step(base, sec)._replace(samples=share, micro_batches=micro_batches)
    sync = step.sync(nodes, per_node, scenario.network)
    wait = (base.wait_share or 0.0) * base.step_sec * share / spec.samples_per_rank
    if is_input_bound(base):  # the loaders need as long as computation and waiting took together
        wait = max(0.0, scenario.compute_sec * share / spec.samples_per_rank + wait - compute)
    return StepTiming(
        compute, wait, sync.exposed_sec, sync.busy_sec, compute + wait + sync.exposed_sec, sync.algorithm
    )


def compute_sec(base: MeasuredSize, network: Network) -> float:
    """Computation in the measured step: its time minus data wait and predicted exposed communication.

    Raises:
        InputError: if the network by itself would take longer than the measured step.
    """
    spec = base.spec
    measured = base.step_sec * (1 - (base.wait_share or 0.0))

    def predicted(compute: float) -> float:
        scenario = Scenario(network, compute, 0.0, _FIXED[1], 1.0)
        timed = timing(base, scenario, spec.nodes, spec.procs_per_node, spec.samples_per_rank)
        return timed.compute_sec + timed.exposed_sec

    if spec.world_size == 1:
        return measured
    if predicted(0.0) > measured:
        raise InputError(
            f"the given network would need {predicted(0.0):.3g} s per step on {spec.nodes} x {spec.procs_per_node} "
            f"ranks, but the measured step took {measured:.3g} s",
            "give a faster network, or predict from a run of one rank",
        )
    return bisect(predicted, measured, 0.0, measured)


def scenarios(base: MeasuredSize, network: NetworkBand) -> tuple[Scenario, Scenario, Scenario]:
    """Best, likely and worst scenario.

    Raises:
        InputError: if the likely network is too slow for the measured step.
    """
    likely = compute_sec(base, network.likely)
    # If the measured run communicated, a slower network leaves less of its step to computation.
    best = compute_sec(base, network.fast)
    try:
        slow, worst = network.slow, compute_sec(base, network.slow)
    except InputError:  # slower than the measured step allows
        slow, worst = network.likely, likely
    spread = _spread(base)
    return (
        Scenario(network.fast, best * (1 - min(spread, 0.5)), 0.0, _FIXED[0], _THREADS[0]),
        Scenario(network.likely, likely, rank_spread(base), _FIXED[1], _THREADS[1]),
        Scenario(slow, worst * (1 + spread), max(2 * rank_spread(base), USUAL_SPREAD), _FIXED[2], _THREADS[2]),
    )


def _spread(sized: MeasuredSize) -> float:
    return USUAL_SPREAD if sized.spread is None else sized.spread


def fit_bandwidth(
    base: MeasuredSize, larger: MeasuredSize, latency_us: Range, within: LinkBand | None = None
) -> LinkBand:
    """The link for which the predicted step of `larger` equals the measured one, from `base`'s single rank.

    It is the link within the node if `larger` ran on one node, otherwise the link between nodes. Without `within`,
    links within a node are assumed equal. The band has both steps off by their spread, in opposite directions.

    Raises:
        InputError: if no bandwidth fits: the larger run lost no time, or more than latency and bandwidth explain.
    """
    if base.spec.world_size > 1:
        raise InputError(
            f"the bandwidth of {larger.spec.world_size} ranks cannot be fitted without a run of a single rank",
            "give one among the runs, or give --bandwidth-gb-s, --within-node-gb-s or --network FILE",
        )
    spec, spread, off = larger.spec, _spread(base), min(_spread(larger), 0.5)
    seconds = base.step_sec * (1 - (base.wait_share or 0.0))
    fast, likely, slow = within or (None, None, None)
    found = _solve_link(base, larger, latency_us.likely, likely, seconds, _THREADS[1], larger.step_sec)
    if not 1.01 * _SLOWEST < found.bytes_per_sec < 0.99 * NO_LIMIT:
        free = Link(latency_sec=0.0, bytes_per_sec=NO_LIMIT)
        alone = _step_sec(base, larger, free, likely, seconds, _THREADS[1])
        theirs, ours = larger.measured_threads, base.measured_threads
        threads = f" (threads a rank: {theirs:.3g}, not {ours:.3g})" if theirs and ours and theirs != ours else ""
        raise InputError(
            f"no bandwidth explains {larger.step_sec:.3g} s a step on {spec.world_size} ranks: without communication "
            f"ranks{threads} are expected to take {alone:.3g} s",
            "give --bandwidth-gb-s or --network FILE"
            if spec.nodes > 1
            else "give --within-node-gb-s or --network FILE",
        )
    long, short = seconds * (1 + spread), seconds * (1 - min(spread, 0.5))
    return LinkBand(
        fast=_solve_link(base, larger, latency_us.low, fast, long, _THREADS[2], larger.step_sec * (1 - off)),
        likely=found,
        slow=_solve_link(base, larger, latency_us.high, slow, short, _THREADS[0], larger.step_sec * (1 + off)),
    )


def _solve_link(
    base: MeasuredSize,
    larger: MeasuredSize,
    delay_us: float,
    within: Link | None,
    compute: float,
    power: float,
    target: float,
) -> Link:
    """The link whose predicted step takes `target` seconds; a bound of the range if no link does."""

    def link(per_byte: float) -> Link:
        return Link(latency_sec=delay_us * 1e-6, bytes_per_sec=1 / per_byte)

    return link(
        bisect(
            lambda per_byte: _step_sec(base, larger, link(per_byte), within, compute, power),
            target, 1 / NO_LIMIT, 1 / _SLOWEST,
        )
    )  # fmt: skip


def _step_sec(
    base: MeasuredSize, larger: MeasuredSize, link: Link, within: Link | None, compute: float, power: float
) -> float:
    spec = larger.spec
    network = Network(between=link, within=link if spec.nodes == 1 else within or link)
    scenario = Scenario(network, compute, rank_spread(base), _FIXED[1], power)
    threads = larger.measured_threads
    return timing(base, scenario, spec.nodes, spec.procs_per_node, spec.samples_per_rank, threads).step_sec


def slowest_of(num_ranks: int) -> float:
    """Expected largest of so many standard normal numbers (Blom 1958): the step waits for the slowest rank."""
    return statistics.NormalDist().inv_cdf((num_ranks - 0.375) / (num_ranks + 0.25))
