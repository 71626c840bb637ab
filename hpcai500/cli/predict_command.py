"""`hpcai500 predict`: step time, FLOPS and VFLOPS at sizes that nobody has run."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from hpcai500.cli.options import Commands, add_command, parse_numbers
from hpcai500.cli.output import print_json, write_named
from hpcai500.errors import InputError

if TYPE_CHECKING:
    from hpcai500.predict.links import GivenLinks

_LARGEST = 1_000_000


def add_parser(commands: Commands) -> None:
    parser = add_command(commands, "predict", main, "what a system would do at sizes nobody has run")
    parser.add_argument("paths", nargs="+", metavar="RESULT", help="a finished run's folder, or a folder of runs")
    parser.add_argument("--nodes", required=True, metavar="N[,N]", help="e.g. 2,8,64,512,4096")
    parser.add_argument("--procs-per-node", type=int, metavar="N", help="ranks per node (default: the result's)")
    parser.add_argument(
        "--scaling", default="recipe", choices=("recipe", "weak", "strong"),
        help="weak: a rank's share stays; strong: the batch; recipe (default): weak up to the largest good batch",
    )  # fmt: skip
    parser.add_argument(
        "--network", metavar="FILE", action="append", default=[],
        help="`micro --json` of collectives; one within a node and one between nodes may be given",
    )  # fmt: skip
    parser.add_argument("--bandwidth-gb-s", metavar="X[..Y]", help="a node's links, each way, in 1e9 bytes/s")
    parser.add_argument("--latency-us", metavar="X[..Y]", help="a message between nodes (default: 5..20)")
    parser.add_argument("--within-node-gb-s", metavar="X[..Y]", help="between ranks of a node (default: as between)")
    parser.add_argument("--within-node-latency-us", metavar="X[..Y]", help="a message within a node")
    parser.add_argument("--plot", metavar="FILE", help="write an SVG with the band of uncertainty")


def main(args: argparse.Namespace) -> int:
    from hpcai500.predict.calibration import read_sizes
    from hpcai500.predict.links import network_of
    from hpcai500.predict.prediction import predict
    from hpcai500.report.prediction import prediction_plot, prediction_text

    numbers = parse_numbers(args.nodes, "--nodes", "a number of nodes", "2,8,64,512,4096", most=_LARGEST)
    nodes = sorted(set(numbers))
    if args.procs_per_node is not None and args.procs_per_node < 1:
        raise InputError(f"--procs-per-node {args.procs_per_node}: fewer than one", "give 1 or more")
    if args.plot and Path(args.plot).suffix != ".svg":
        raise InputError(f"--plot {args.plot}: plots are SVG", "name a file that ends in .svg")
    left_out: list[str] = []
    sizes = read_sizes((Path(path) for path in args.paths), left_out)
    prediction = predict(
        sizes, nodes, network_of(_links(args), sizes, nodes, args.procs_per_node or 1),
        ranks_per_node=args.procs_per_node, scaling=args.scaling, left_out=left_out,
    )  # fmt: skip
    if args.plot:
        write_named(args.plot, prediction_plot(prediction))
    if args.json:
        print_json(prediction.model_dump(mode="json"))
    else:
        print(prediction_text(prediction))
    return 0


def _links(args: argparse.Namespace) -> GivenLinks:
    from hpcai500.predict.links import GivenLinks, read_links
    from hpcai500.predict.network import Range, parse_range

    def given(option: str) -> Range | None:
        text = getattr(args, option.removeprefix("--").replace("-", "_"))
        return None if text is None else parse_range(text, option)

    return GivenLinks(
        measured=read_links([Path(path) for path in args.network]),
        bandwidth=given("--bandwidth-gb-s"),
        latency=given("--latency-us"),
        within_bandwidth=given("--within-node-gb-s"),
        within_latency=given("--within-node-latency-us"),
    )
