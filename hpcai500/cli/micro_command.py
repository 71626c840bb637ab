"""`hpcai500 micro`: kernels, memory, storage and collectives, each measured by itself."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from hpcai500.cli.options import Commands, add_command, add_device, add_site_values, parse_numbers, site_of
from hpcai500.cli.output import print_json, write_named
from hpcai500.errors import SpecError, nearest
from hpcai500.launch.software import BACKENDS

if TYPE_CHECKING:
    from hpcai500.micro.sample import Part


def add_parser(commands: Commands) -> None:
    parser = add_command(commands, "micro", main, "kernels, memory, storage, collectives on their own")
    parser.add_argument(
        "--only", default="", metavar="LIST",
        help="kernels, workloads, storage, collectives (default: all but collectives, which need ranks)",
    )  # fmt: skip
    add_device(parser)
    parser.add_argument(
        "--precisions", default="", metavar="LIST",
        help="fp64, fp32, tf32, bf16, fp16 (default: all for kernels, its own for each workload)",
    )  # fmt: skip
    parser.add_argument("--budget-sec", type=float, default=60.0, metavar="SEC", help="default: 60")
    parser.add_argument("--output", metavar="FILE", help="write what --json prints there")
    workloads = parser.add_argument_group("workloads")
    workloads.add_argument(
        "--workload", action="append", metavar="NAME",
        help="measure the shapes of this one; may be given several times (default: all shipped)",
    )  # fmt: skip
    workloads.add_argument(
        "--problem", default="mini",
        help="full or mini (default: mini, whose shapes every machine can compute)",
    )  # fmt: skip
    storage = parser.add_argument_group("storage")
    storage.add_argument(
        "--folder",
        default=".",
        metavar="DIR",
        help="where storage is measured, and where the ranks meet (default: .)",
    )
    storage.add_argument("--data", default="", metavar="DIR", help="read a prepared data set too")
    ranks = parser.add_argument_group("collectives")
    ranks.add_argument("--backend", default="torch", choices=(*BACKENDS, "mpi"), help="default: torch")
    ranks.add_argument("--launcher", metavar="NAME", help="default: as `run` chooses it")
    ranks.add_argument("--nodes", type=int, metavar="N", help="default: the allocation's, or 1")
    ranks.add_argument("--procs-per-node", type=int, metavar="N", help="ranks per node")
    ranks.add_argument("--sizes", default="", metavar="LIST", help="bytes of an array, e.g. 8,1048576")
    ranks.add_argument("--site", default="", help="a site profile, for srun's options")
    add_site_values(ranks)


def main(args: argparse.Namespace) -> int:
    from hpcai500.launch.decision import Wanted
    from hpcai500.micro.launching import SIZES
    from hpcai500.micro.suite import Suite, measure
    from hpcai500.report.micro import micro_text

    if args.budget_sec <= 0:
        raise SpecError(f"--budget-sec {args.budget_sec:g}: must be above 0", "give more seconds")
    sizes = parse_numbers(args.sizes, "--sizes", "a number of bytes", "8,1048576") if args.sizes else SIZES
    suite = Suite(
        parts=_parts(args.only),
        budget_sec=args.budget_sec,
        device=args.device,
        precisions=tuple(args.precisions.split(",")) if args.precisions else (),
        workloads=tuple(args.workload or ()),
        problem=args.problem,
        folder=Path(args.folder),
        data=Path(args.data) if args.data else None,
        ranks=Wanted(args.backend, args.launcher, args.nodes, args.procs_per_node),
        sizes=tuple(sizes),
        site=site_of(args.site, args.slurm),
        quiet=args.json,
    )
    document = measure(suite)
    if args.output:
        write_named(args.output, document.model_dump_json(indent=2) + "\n")
    if args.json:
        print_json(document.model_dump(mode="json"))
    else:
        print(micro_text(document))
    return 0 if all(sample.correct for sample in document.samples) else 1


def _parts(text: str) -> tuple[Part, ...]:
    """The parts of `--only` in their own order, or all that one process measures."""
    from hpcai500.micro.sample import PARTS

    parts = text.split(",") if text else PARTS[:-1]
    for part in parts:
        if part not in PARTS:
            raise SpecError(f"--only: unknown part {part!r}", nearest(part, PARTS))
    return tuple(part for part in PARTS if part in parts)
