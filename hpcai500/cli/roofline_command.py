"""`hpcai500 roofline`: what bounds a workload on this machine, arithmetic or memory."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from hpcai500.cli.options import Commands, add_command, add_device
from hpcai500.cli.output import print_json, write_named
from hpcai500.errors import InputError, SpecError

if TYPE_CHECKING:
    from hpcai500.micro.roofline_model import Ceilings, WorkloadPoint


def add_parser(commands: Commands) -> None:
    parser = add_command(commands, "roofline", main, "what bounds a workload: arithmetic or memory")
    parser.add_argument("paths", nargs="*", metavar="RESULT", help="runs (default: steps measured here)")
    parser.add_argument(
        "--workload", action="append", metavar="NAME",
        help="measure this one here; may be given several times (default: all shipped)",
    )  # fmt: skip
    parser.add_argument(
        "--problem", default="mini",
        help="full or mini, for workloads measured here (default: mini, which every machine can train)",
    )  # fmt: skip
    parser.add_argument(
        "--precision", choices=("fp32", "bf16", "fp16"),
        help="for workloads measured here (default: the problem's own)",
    )  # fmt: skip
    add_device(parser)
    parser.add_argument(
        "--ceilings", metavar="FILE", help="the file of `micro --output`, instead of measuring them here"
    )
    parser.add_argument("--budget-sec", type=float, default=40.0, metavar="SEC", help="default: 40")
    parser.add_argument("--plot", metavar="FILE", help="write an SVG")


def main(args: argparse.Namespace) -> int:
    from hpcai500.micro.roofline import read_ceilings
    from hpcai500.micro.roofline_model import Roofline, roofline_point
    from hpcai500.micro.suite import device_of
    from hpcai500.report.roofline import roofline_plot, roofline_text

    if args.plot and Path(args.plot).suffix != ".svg":
        raise InputError(f"--plot {args.plot}: plots are SVG", "name a file that ends in .svg")
    if args.budget_sec <= 0:
        raise SpecError(f"--budget-sec {args.budget_sec:g}: must be above 0", "give more seconds")
    device = device_of(args.device)
    points = _points(args, device)
    if args.ceilings:
        ceilings = read_ceilings(Path(args.ceilings))
    else:
        ceilings = _measured_ceilings(device, points, args.budget_sec / 2)
    for point in points:
        if not ceilings.peak(point.precision):
            raise InputError(
                f"{ceilings.source}: no ceiling in {point.precision}, which {point.name} trains in",
                f"`hpcai500 micro --only kernels --precisions {point.precision}` measures one",
            )
    found = Roofline(ceilings=ceilings, points=tuple(roofline_point(point, ceilings) for point in points))
    if args.plot:
        write_named(args.plot, roofline_plot(found))
    if args.json:
        print_json(found.model_dump(mode="json"))
    else:
        print(roofline_text(found))
    return 0


def _points(args: argparse.Namespace, device: str) -> list[WorkloadPoint]:
    """The points of the results, or of the workloads measured here."""
    from hpcai500.micro.roofline import measure_point, points_of_runs
    from hpcai500.spec.workload import shipped_workloads

    if args.paths:
        return points_of_runs(Path(path) for path in args.paths)
    names = args.workload or [folder.name for folder in shipped_workloads()]
    share_sec = args.budget_sec / 2 / len(names)
    return [measure_point(name, args.problem, device, args.precision or "", share_sec) for name in names]


def _measured_ceilings(device: str, points: list[WorkloadPoint], budget_sec: float) -> Ceilings:
    """The ceilings in only the points' precisions; and in TF32, which fp32 convolutions use on a GPU."""
    from hpcai500.micro.roofline import measure_ceilings
    from hpcai500.system.host import host_name

    precisions = dict.fromkeys(point.precision for point in points)
    wanted = [*precisions, *(["tf32"] if "fp32" in precisions else [])]
    return measure_ceilings(host_name(), device, wanted, budget_sec)
