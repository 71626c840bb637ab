"""`hpcai500 predict`."""

import argparse
import sys
from pathlib import Path

from hpcai500.cli.output import print_json
from hpcai500.errors import InputError
from hpcai500.files import write_atomic
from hpcai500.report.prediction_text import prediction_plot, prediction_text
from hpcai500.score.calibration import Sized, fit_bandwidth, read_sizes
from hpcai500.score.network import LinkBand, NetworkBand, Range, band, link_band, parse_range, read_measured
from hpcai500.score.prediction import predict

_LATENCY_US = "5..20"
"""Of a message between nodes, where nothing tells: from InfiniBand to Ethernet."""
_LARGEST = 1_000_000


def main(args: argparse.Namespace) -> int:
    nodes = parse_nodes(args.nodes)
    if args.procs_per_node is not None and args.procs_per_node < 1:
        raise InputError(f"--procs-per-node {args.procs_per_node}: fewer than one", "give 1 or more")
    if args.plot and Path(args.plot).suffix != ".svg":
        raise InputError(f"--plot {args.plot}: plots are SVG", "name a file that ends in .svg")
    sizes = read_sizes(Path(path) for path in args.paths)
    prediction = predict(
        sizes, nodes, _network(args, sizes), ranks_per_node=args.procs_per_node, scaling=args.scaling
    )
    if args.plot:
        if not prediction.points:
            raise InputError(f"--plot {args.plot}: {prediction.impossible[0]}", "give sizes that can be")
        write_atomic(Path(args.plot), prediction_plot(prediction))
        print(f"wrote {args.plot}", file=sys.stderr)
    if args.json:
        print_json(prediction.model_dump(mode="json"))
    else:
        print(prediction_text(prediction))
    return 0


def parse_nodes(text: str) -> list[int]:
    """`2,8,64` as numbers, in order."""
    parts = [part.strip() for part in text.split(",")]
    for part in parts:
        if not part.isascii() or not part.isdigit() or not 1 <= int(part) <= _LARGEST:
            raise InputError(f"--nodes {text}: {part!r} is no number of nodes", "write e.g. 2,8,64,512,4096")
    return sorted({int(part) for part in parts})


def _network(args: argparse.Namespace, sizes: list[Sized]) -> NetworkBand:
    """As measured, as given, or as a second measured size makes it."""
    measured = {nodes > 1: link for link, nodes in (read_measured(Path(path)) for path in args.network)}
    latency = parse_range(args.latency_us or _LATENCY_US, "--latency-us")
    between, source = measured.get(True), "measured"
    if args.bandwidth_gb_s:
        between = link_band(latency, parse_range(args.bandwidth_gb_s, "--bandwidth-gb-s"))
        source = "as given"
    within = _within(args, measured.get(False), latency) or between
    if between is None and within is not None and len(sizes) < 2:
        hint = "give --bandwidth-gb-s, or a --network FILE that was measured over several nodes"
        raise InputError("the network between nodes is unknown", hint)
    if between is None or within is None:
        return _fitted(sizes, latency, within)
    return band(between, within, source if args.latency_us or measured else f"{source}; latency assumed")


def _within(args: argparse.Namespace, measured: LinkBand | None, latency: Range) -> LinkBand | None:
    if not args.within_node_gb_s:
        return measured
    given = args.within_node_latency_us
    within = parse_range(given, "--within-node-latency-us") if given else latency
    return link_band(within, parse_range(args.within_node_gb_s, "--within-node-gb-s"))


def _fitted(sizes: list[Sized], latency: Range, within: LinkBand | None) -> NetworkBand:
    """The bandwidth that explains the largest measured size."""
    if len(sizes) < 2:
        raise InputError(
            "the network is unknown",
            "give --bandwidth-gb-s, or --network FILE, or runs of two sizes that it follows from",
        )
    links = within or (None, None, None)
    networks = [
        fit_bandwidth(sizes[0], sizes[-1], delay * 1e-6, link) for delay, link in zip(latency, links, strict=True)
    ]
    source = f"bandwidth fitted to the step on {sizes[-1].spec.world_size} ranks"
    return NetworkBand(fast=networks[0], likely=networks[1], slow=networks[2], source=source)
