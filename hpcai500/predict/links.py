"""The links of a prediction: measured, given, fitted to a second measured size, or taken from one another."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from hpcai500.errors import InputError
from hpcai500.predict.calibration import MeasuredSize
from hpcai500.predict.network import LinkBand, NetworkBand, Range, band, link_band, parse_range, read_measured
from hpcai500.predict.step_model import fit_bandwidth

_ASSUMED_LATENCY = parse_range("5..20", "--latency-us")
"""From InfiniBand to Ethernet, in microseconds per message."""


class GivenLinks(NamedTuple):
    """What a user knows of the links; None for what is unknown."""

    measured: Mapping[bool, LinkBand]
    """Fitted to measured all-reduces; True for the link between nodes, False for that within a node."""
    bandwidth: Range | None = None
    """Between nodes, each way, in 1e9 bytes per second."""
    latency: Range | None = None
    """Latency of a message between nodes, in microseconds."""
    within_bandwidth: Range | None = None
    within_latency: Range | None = None


class _SourcedLink(NamedTuple):
    link: LinkBand
    source: str


def network_of(
    given: GivenLinks, sizes: Sequence[MeasuredSize], nodes: Sequence[int], procs_per_node: int
) -> NetworkBand:
    """Each link as measured, as given, or fitted to a second measured size.

    `sizes` are the measured ones; `nodes` and `procs_per_node` are the sizes to predict.

    Raises:
        InputError: if a link is given twice, or a required link is missing.
    """
    between = _between(given)
    within = _within(given)
    base, larger = sizes[0], sizes[1:]
    many = [size for size in larger if size.spec.nodes > 1]
    if between is None and not many and (max(nodes) > 1 or base.spec.nodes > 1):
        raise _unknown_between(sizes)
    fitted = []
    one_node = [size for size in larger if size.spec.nodes == 1]
    if within is None and between is None and one_node:
        within = _fitted(base, one_node[-1], given.within_latency or given.latency)
        fitted.append(one_node[-1].spec.world_size)
    if between is None and many:
        between = _fitted(base, many[-1], given.latency, within.link if within else None)
        fitted.append(many[-1].spec.world_size)
    _require_latency_used(given, between, within, fitted)
    if within is None and between is not None:
        guess = ", a guess on which the measured computation rests" if base.spec.procs_per_node > 1 else ""
        within = _SourcedLink(between.link, f"taken as between nodes{guess}")
    shares_node = max(size.spec.procs_per_node for size in sizes) > 1 or procs_per_node > 1
    if within is None and shares_node:
        raise InputError(
            "the link within a node is unknown",
            "give --within-node-gb-s, or a --network FILE measured within one node",
        )
    unknown = "unknown, and not needed"
    return band(
        between.link if between else None,
        within.link if within else None,
        (between.source if between else unknown, within.source if within else unknown),
        fitted,
    )


def read_links(paths: Sequence[Path]) -> dict[bool, LinkBand]:
    """The links fitted to the files of `micro --json`; True for the one between nodes.

    Raises:
        InputError: for a second file of the same link.
    """
    found: dict[bool, LinkBand] = {}
    for path in paths:
        link, nodes = read_measured(path)
        if (nodes > 1) in found:
            which = "between nodes" if nodes > 1 else "within a node"
            raise InputError(f"--network {path}: the second file of the link {which}", "give one of each kind")
        found[nodes > 1] = link
    return found


def _between(given: GivenLinks) -> _SourcedLink | None:
    measured, latency = given.measured.get(True), given.latency
    if measured and (given.bandwidth or latency):
        raise _given_twice("--bandwidth-gb-s, --latency-us")
    if measured:
        return _SourcedLink(measured, "as measured")
    if given.bandwidth is None:
        return None
    source = "as given" if latency else "as given; latency assumed"
    return _SourcedLink(link_band(latency or _ASSUMED_LATENCY, given.bandwidth), source)


def _within(given: GivenLinks) -> _SourcedLink | None:
    measured, latency = given.measured.get(False), given.within_latency
    if measured and (given.within_bandwidth or latency):
        raise _given_twice("--within-node-gb-s, --within-node-latency-us")
    if measured:
        return _SourcedLink(measured, "as measured")
    if given.within_bandwidth is None:
        return None
    borrowed = f"as given; latency {'as between nodes' if given.latency else 'assumed'}"
    return _SourcedLink(
        link_band(latency or given.latency or _ASSUMED_LATENCY, given.within_bandwidth),
        "as given" if latency else borrowed,
    )


def _given_twice(options: str) -> InputError:
    return InputError(f"{options}: --network FILE has the same link", "give one or the other")


def _require_latency_used(
    given: GivenLinks, between: _SourcedLink | None, within: _SourcedLink | None, fitted: Sequence[int]
) -> None:
    if within is None and given.within_latency:
        raise InputError("--within-node-latency-us has no use without --within-node-gb-s", "give both or neither")
    if between is None and given.latency and not fitted:
        raise InputError("--latency-us has no use without --bandwidth-gb-s", "give both or neither")


def _unknown_between(sizes: Sequence[MeasuredSize]) -> InputError:
    hint = "give --bandwidth-gb-s, or a --network FILE measured over several nodes"
    if sizes[0].spec.nodes > 1:
        return InputError("the link between nodes is unknown: no run of a single rank to compare with", hint)
    why = (
        "all measured ranks are on one node" if sizes[-1].spec.world_size > 1 else "a run of one rank does not use it"
    )
    return InputError(f"the link between nodes is unknown: {why}", f"{hint}; --nodes 1 needs neither")


def _fitted(
    base: MeasuredSize, larger: MeasuredSize, latency: Range | None, within: LinkBand | None = None
) -> _SourcedLink:
    link = fit_bandwidth(base, larger, latency or _ASSUMED_LATENCY, within)
    source = f"bandwidth fitted to the step on {larger.spec.world_size} ranks"
    return _SourcedLink(link, source if latency else f"{source}; latency assumed")
