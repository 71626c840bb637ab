"""The time of one step at any size, from one measured size: computation, waiting for data, exposed communication."""

import math
import statistics
from typing import NamedTuple

from hpcai500.errors import InputError
from hpcai500.predict.calibration import USUAL_SPREAD, Sized, as_step, bisect
from hpcai500.predict.communication import Link, Network
from hpcai500.predict.network import LinkBand, NetworkBand, Range

INPUT_LIMITS = 0.02
"""Of a step: where loaders read ahead, a larger share of waiting shows that input limits."""

_FIXED = (0.0, 0.11, 0.33)
"""Best, likely and worst part of a micro-batch's time that does not shrink with it.

Two batches of 32 images take 7 to 12 % longer than one of 64 on a P100 (TensorFlow benchmarks, May 2017, 4 models):
what does not shrink. The worst is three times the likely one.
"""

_THREADS = (0.75, 1.0, 1.25)
"""Best, likely and worst power of 1 / threads that computation follows: an assumption.

With more threads than measured the best power is as far above 1 as it is below with fewer.
"""

_LEAST = 0.5
"""Of the measured computation: what fewer ranks than measured can save of waiting for the slowest, at most."""

NO_LIMIT, _SLOWEST = 1e13, 1e5
"""Bytes a second between which a fitted bandwidth is sought; at the first the step tells no upper limit."""


class Scenario(NamedTuple):
    network: Network
    compute_sec: float
    """Of the measured share on the measured threads, the slowest of the measured ranks included."""
    spread: float
    """Of ranks' step times, which the slowest of many exceeds the mean by some times."""
    fixed: float
    """The part of a micro-batch's time that does not shrink with it."""
    thread_power: float


class Timing(NamedTuple):
    compute_sec: float
    wait_sec: float
    """For data."""
    exposed_sec: float
    busy_sec: float
    step_sec: float
    """Computation, waiting and exposed communication."""
    algorithm: str


def rank_spread(base: Sized) -> float:
    """Of the step times of ranks: no more than the usual, as an epoch that is slow as a whole tells of no rank."""
    return USUAL_SPREAD if base.spread is None else min(base.spread, USUAL_SPREAD)


def is_input_bound(base: Sized) -> bool:
    """Whether loaders read ahead and the measured steps waited for them all the same."""
    return bool(base.loader_processes) and (base.wait_share or 0.0) > INPUT_LIMITS


def timing(
    base: Sized, scenario: Scenario, nodes: int, per_node: int, share: int, threads: float | None = None
) -> Timing:
    """One step of `share` samples a rank; `threads` of a rank are as `base` would have them if not given."""
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
    if is_input_bound(base):  # the loaders need what the model computed and waited
        wait = max(0.0, scenario.compute_sec * share / spec.samples_per_rank + wait - compute)
    return Timing(compute, wait, sync.exposed_sec, sync.busy_sec, compute + wait + sync.exposed_sec, sync.algorithm)


def compute_sec(base: Sized, network: Network) -> float:
    """Of a step as measured: less waiting, and less what is predicted to stand exposed in it.

    Raises:
        InputError: if the network alone would take longer than the measured step.
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
            f"the network as given would need {predicted(0.0):.3g} s a step on {spec.nodes} x {spec.procs_per_node} "
            f"ranks, but the measured step took {measured:.3g} s",
            "give a faster network, or predict from a run of one rank",
        )
    return bisect(predicted, measured, 0.0, measured)


def scenarios(base: Sized, network: NetworkBand) -> tuple[Scenario, Scenario, Scenario]:
    """The best, the likely and the worst.

    Raises:
        InputError: if the likely network is too slow for the measured step.
    """
    likely = compute_sec(base, network.likely)
    # Where the measured run communicated, a slower network leaves less of its step to computation.
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


def _spread(sized: Sized) -> float:
    return USUAL_SPREAD if sized.spread is None else sized.spread


def fit_bandwidth(base: Sized, larger: Sized, latency_us: Range, within: LinkBand | None = None) -> LinkBand:
    """The link with which `larger`'s step comes out as measured, from `base`'s single rank.

    Of `larger` on one node it is the link within the node, else that between nodes; without `within`, links within a
    node are then the same. The band holds both steps a spread off, against each other.

    Raises:
        InputError: if no bandwidth does: the larger run lost nothing, or more than latency and bandwidth explain.
    """
    if base.spec.world_size > 1:
        raise InputError(
            f"no run of a single rank from which the bandwidth of {larger.spec.world_size} ranks follows",
            "name one among the runs, or give --bandwidth-gb-s, --within-node-gb-s or --network FILE",
        )
    spec, spread, off = larger.spec, _spread(base), min(_spread(larger), 0.5)
    seconds = base.step_sec * (1 - (base.wait_share or 0.0))
    fast, likely, slow = within or (None, None, None)
    found = _meeting(base, larger, latency_us.likely, likely, seconds, _THREADS[1], larger.step_sec)
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
        fast=_meeting(base, larger, latency_us.low, fast, long, _THREADS[2], larger.step_sec * (1 - off)),
        likely=found,
        slow=_meeting(base, larger, latency_us.high, slow, short, _THREADS[0], larger.step_sec * (1 + off)),
    )


def _meeting(
    base: Sized, larger: Sized, delay_us: float, within: Link | None, compute: float, power: float, target: float
) -> Link:
    """At a bound of what is sought where nothing in it meets `target`."""

    def link(per_byte: float) -> Link:
        return Link(latency_sec=delay_us * 1e-6, bytes_per_sec=1 / per_byte)

    return link(
        bisect(
            lambda per_byte: _step_sec(base, larger, link(per_byte), within, compute, power),
            target, 1 / NO_LIMIT, 1 / _SLOWEST,
        )
    )  # fmt: skip


def _step_sec(base: Sized, larger: Sized, link: Link, within: Link | None, compute: float, power: float) -> float:
    spec = larger.spec
    network = Network(between=link, within=link if spec.nodes == 1 else within or link)
    scenario = Scenario(network, compute, rank_spread(base), _FIXED[1], power)
    threads = larger.measured_threads
    return timing(base, scenario, spec.nodes, spec.procs_per_node, spec.samples_per_rank, threads).step_sec


def slowest_of(num_ranks: int) -> float:
    """The expected largest of so many standard normal numbers (Blom 1958): the step waits for the slowest rank."""
    return statistics.NormalDist().inv_cdf((num_ranks - 0.375) / (num_ranks + 0.25))
