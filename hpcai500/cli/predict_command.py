"""`hpcai500 predict`."""

import argparse
import sys
from pathlib import Path
from typing import NamedTuple

from hpcai500.cli.output import print_json
from hpcai500.errors import InputError
from hpcai500.files import write_atomic
from hpcai500.predict.calibration import MeasuredSize, read_sizes
from hpcai500.predict.network import LinkBand, NetworkBand, Range, band, link_band, parse_range, read_measured
from hpcai500.predict.prediction import predict
from hpcai500.predict.step_model import fit_bandwidth
from hpcai500.report.prediction import prediction_plot, prediction_text

_ASSUMED = parse_range("5..20", "--latency-us")
"""Of a message, where nothing tells: from InfiniBand to Ethernet."""
_LARGEST = 1_000_000


def main(args: argparse.Namespace) -> int:
    nodes = parse_nodes(args.nodes)
    if args.procs_per_node is not None and args.procs_per_node < 1:
        raise InputError(f"--procs-per-node {args.procs_per_node}: fewer than one", "give 1 or more")
    if args.plot and Path(args.plot).suffix != ".svg":
        raise InputError(f"--plot {args.plot}: plots are SVG", "name a file that ends in .svg")
    left_out: list[str] = []
    sizes = read_sizes((Path(path) for path in args.paths), left_out)
    prediction = predict(
        sizes, nodes, _network(args, sizes, nodes),
        ranks_per_node=args.procs_per_node, scaling=args.scaling, left_out=left_out,
    )  # fmt: skip
    if args.plot:
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


class _Known(NamedTuple):
    link: LinkBand
    source: str


def _network(args: argparse.Namespace, sizes: list[MeasuredSize], nodes: list[int]) -> NetworkBand:
    """Each link as measured, as given, or as a second measured size makes it.

    Raises:
        InputError: for a link told of twice, or one that is needed and that nothing tells of.
    """
    measured = _measured(args.network)
    delay, inner_delay = _range(args, "--latency-us"), _range(args, "--within-node-latency-us")
    between = _known(measured.get(True), _range(args, "--bandwidth-gb-s"), delay, "--bandwidth-gb-s, --latency-us")
    within = _known(
        measured.get(False), _range(args, "--within-node-gb-s"), inner_delay or delay,
        "--within-node-gb-s, --within-node-latency-us", is_told=inner_delay is not None,
    )  # fmt: skip
    many = [size for size in sizes[1:] if size.spec.nodes > 1]
    if between is None and not many and (max(nodes) > 1 or sizes[0].spec.nodes > 1):
        raise _unknown_between(sizes)
    fitted = []
    shares_node = max(size.spec.procs_per_node for size in sizes) > 1 or (args.procs_per_node or 1) > 1
    one_node = [size for size in sizes[1:] if size.spec.nodes == 1]
    if within is None and between is None and one_node:
        within = _fitted(sizes[0], one_node[-1], inner_delay or delay)
        fitted.append(one_node[-1].spec.world_size)
    if between is None and many:
        between = _fitted(sizes[0], many[-1], delay, within.link if within else None)
        fitted.append(many[-1].spec.world_size)
    if within is None and inner_delay:
        raise InputError("--within-node-latency-us tells nothing without --within-node-gb-s", "give both or neither")
    if between is None and delay and not fitted:
        raise InputError("--latency-us tells nothing without --bandwidth-gb-s", "give both or neither")
    if within is None and between is not None:
        guess = ", a guess on which the measured computation rests" if sizes[0].spec.procs_per_node > 1 else ""
        within = _Known(between.link, f"taken as between nodes{guess}")
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


def _unknown_between(sizes: list[MeasuredSize]) -> InputError:
    hint = "give --bandwidth-gb-s, or a --network FILE measured over several nodes"
    if sizes[0].spec.nodes > 1:
        return InputError("the link between nodes is unknown: no run of a single rank to compare with", hint)
    why = "all measured ranks are on one node" if sizes[-1].spec.world_size > 1 else "one rank tells nothing of it"
    return InputError(f"the link between nodes is unknown: {why}", f"{hint}; --nodes 1 needs neither")


def _range(args: argparse.Namespace, option: str) -> Range | None:
    text = getattr(args, option.removeprefix("--").replace("-", "_"))
    return None if text is None else parse_range(text, option)


def _measured(paths: list[str]) -> dict[bool, LinkBand]:
    """By whether it lies between nodes."""
    found: dict[bool, LinkBand] = {}
    for path in paths:
        link, nodes = read_measured(Path(path))
        if (nodes > 1) in found:
            place = "between nodes" if nodes > 1 else "within a node"
            raise InputError(f"--network {path}: the second file of the link {place}", "give one of each kind")
        found[nodes > 1] = link
    return found


def _known(
    measured: LinkBand | None, speed: Range | None, delay: Range | None, options: str, *, is_told: bool | None = None
) -> _Known | None:
    """`is_told`: whether `delay` was given for this link, and not for the other."""
    is_told = delay is not None if is_told is None else is_told
    if measured and (speed or is_told):
        raise InputError(f"{options}: --network FILE tells of the same link", "give one or the other")
    if measured:
        return _Known(measured, "as measured")
    if speed is None:
        return None
    return _Known(link_band(delay or _ASSUMED, speed), "as given" if is_told else _borrowed("as given", delay))


def _borrowed(source: str, delay: Range | None) -> str:
    return f"{source}; latency {'as between nodes' if delay else 'assumed'}"


def _fitted(base: MeasuredSize, larger: MeasuredSize, delay: Range | None, within: LinkBand | None = None) -> _Known:
    source = f"bandwidth fitted to the step on {larger.spec.world_size} ranks"
    return _Known(
        fit_bandwidth(base, larger, delay or _ASSUMED, within), source if delay else f"{source}; latency assumed"
    )
