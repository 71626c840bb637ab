"""`hpcai500 roofline`."""

import argparse
import sys
from pathlib import Path

from hpcai500.cli.output import print_json
from hpcai500.errors import InputError, SpecError
from hpcai500.files import write_atomic
from hpcai500.micro.roofline_model import Ceilings, Roofline, WorkloadPoint, roofline_point
from hpcai500.report.roofline import roofline_plot, roofline_text
from hpcai500.spec.workload import shipped_workloads
from hpcai500.system.devices import num_gpus
from hpcai500.system.host import host_name


def main(args: argparse.Namespace) -> int:
    from hpcai500.micro.roofline import read_ceilings

    if args.plot and Path(args.plot).suffix != ".svg":
        raise InputError(f"--plot {args.plot}: plots are SVG", "name a file that ends in .svg")
    if args.budget_sec <= 0:
        raise SpecError(f"--budget-sec {args.budget_sec:g}: no time", "give more than 0")
    device = args.device if args.device != "auto" else ("cuda" if num_gpus() else "cpu")
    points = _points(args, device)
    ceilings = read_ceilings(Path(args.ceilings)) if args.ceilings else _measured(args, device, points)
    for point in points:
        if not ceilings.peak(point.precision):
            raise InputError(
                f"{ceilings.source}: no ceiling in {point.precision}, which {point.name} trains in",
                f"`hpcai500 micro --only kernels --precisions {point.precision}` measures one",
            )
    found = Roofline(ceilings=ceilings, points=tuple(roofline_point(point, ceilings) for point in points))
    if args.plot:
        write_atomic(Path(args.plot), roofline_plot(found))
        print(f"wrote {args.plot}", file=sys.stderr)
    if args.json:
        print_json(found.model_dump(mode="json"))
    else:
        print(roofline_text(found))
    return 0


def _points(args: argparse.Namespace, device: str) -> list[WorkloadPoint]:
    """Of the results, or of the workloads measured here."""
    from hpcai500.micro.roofline import measure_point, points_of_runs

    if args.paths:
        return points_of_runs(Path(path) for path in args.paths)
    names = args.workload or [folder.name for folder in shipped_workloads()]
    share = args.budget_sec / 2 / len(names)
    return [measure_point(name, args.problem, device, args.precision or "", share) for name in names]


def _measured(args: argparse.Namespace, device: str, points: list[WorkloadPoint]) -> Ceilings:
    """Of the points' precisions alone; and TF32, which fp32 convolutions use on a GPU."""
    from hpcai500.micro.roofline import measure_ceilings

    precisions = dict.fromkeys(point.precision for point in points)
    wanted = [*precisions, *(["tf32"] if "fp32" in precisions else [])]
    return measure_ceilings(host_name(), device, wanted, args.budget_sec / 2)
