"""`hpcai500 micro`."""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from tabulate import tabulate

from hpcai500.cli.output import print_json
from hpcai500.cli.site_options import site_with
from hpcai500.errors import SpecError, nearest
from hpcai500.files import write_atomic
from hpcai500.launch.allocation.slurm import read_allocation
from hpcai500.launch.decision import Wanted, decide
from hpcai500.launch.environment import this_machine
from hpcai500.launch.layout import Layout
from hpcai500.launch.requirements import require_software
from hpcai500.micro.document import MicroDocument, describe
from hpcai500.micro.launching import SIZES, CollectivesRequest, start_collectives
from hpcai500.micro.sample import PARTS, MicroResults, Part, Sample
from hpcai500.report.ranking.columns import quantity
from hpcai500.spec.models import parse
from hpcai500.spec.workload import shipped_workloads
from hpcai500.system.devices import num_gpus
from hpcai500.system.host import host_name
from hpcai500.text import si

_SHARES = {"kernels": 0.45, "workloads": 0.35, "storage": 0.2, "collectives": 1.0}
_AIBENCH = "aibench"
"""Family of AIBench's kernels, in the name of each too."""
_WIDEST_NAME, _WIDEST_DETAIL = 29, 45


def main(args: argparse.Namespace) -> int:
    parts = _parts(args.only)
    if args.budget_sec <= 0:
        raise SpecError(f"--budget-sec {args.budget_sec:g}: no time", "give more than 0")
    found, place = MicroResults(), dict[str, Any]()
    total = sum(_SHARES[part] for part in parts)
    device = _device(args.device)
    for part in parts:
        budget = args.budget_sec * _SHARES[part] / total
        if part == "kernels":
            found += _kernels(args, device, budget)
        elif part == "workloads":
            found += _workloads(args, device, budget)
        elif part == "storage":
            found += _storage(args, budget)
        else:
            measured, place = _collectives(args, budget)
            found += measured
    document = describe(host_name(), device, found, **place)
    if args.output:
        write_atomic(Path(args.output), document.model_dump_json(indent=2) + "\n")
        print(f"wrote {args.output}", file=sys.stderr)
    if args.json:
        print_json(document.model_dump(mode="json"))
    else:
        print(micro_text(document))
    return 0 if found.correct else 1


def _parts(text: str) -> list[Part]:
    """Of `--only`, or all that one process measures."""
    parts = text.split(",") if text else list(PARTS[:-1])
    for part in parts:
        if part not in PARTS:
            raise SpecError(f"--only: unknown part {part!r}", nearest(part, PARTS))
    return [part for part in PARTS if part in parts]


def _device(wanted: str) -> str:
    if wanted == "auto":
        return "cuda" if num_gpus() else "cpu"
    return wanted


def _precisions(text: str) -> list[str]:
    return text.split(",") if text else ["fp64", "fp32", "tf32", "bf16", "fp16"]


def _kernels(args: argparse.Namespace, device: str, budget_sec: float) -> MicroResults:
    from hpcai500.micro.compute import measure_compute

    return measure_compute(device, budget_sec=budget_sec, precisions=_precisions(args.precisions))


def _workloads(args: argparse.Namespace, device: str, budget_sec: float) -> MicroResults:
    """Each in the precision that it trains in by default, or in those that were asked for."""
    from hpcai500.micro.compute import find_device
    from hpcai500.micro.passes import default_precision
    from hpcai500.micro.workload_kernels import measure_workload

    place = find_device(device)
    names = args.workload or [folder.name for folder in shipped_workloads()]
    found = MicroResults()
    for name in names:
        precisions = _precisions(args.precisions) if args.precisions else [default_precision(name, args.problem)]
        for precision in precisions:
            share = budget_sec / len(names) / len(precisions)
            found += measure_workload(name, args.problem, place, precision=precision, budget_sec=share)
    return found


def _storage(args: argparse.Namespace, budget_sec: float) -> MicroResults:
    from hpcai500.micro.storage import measure_prepared, measure_storage

    if not args.data:
        return measure_storage(Path(args.folder), budget_sec=budget_sec)
    found = measure_storage(Path(args.folder), budget_sec=budget_sec / 2)
    return found + measure_prepared(Path(args.data), budget_sec=budget_sec / 2)


def _collectives(args: argparse.Namespace, budget_sec: float) -> tuple[MicroResults, dict[str, Any]]:
    """What the ranks found, and how they were started."""
    site = site_with(args.site, args.slurm)
    machine = this_machine()
    device = args.device.partition(":")[0]
    on_gpus = device != "cpu" and args.backend != "mpi"
    wanted = Wanted(args.backend, args.launcher, args.nodes, args.procs_per_node, on_gpus=on_gpus)
    layout, allocation = decide(wanted, site, read_allocation(machine.env), machine.env)
    require_software(args.backend, layout.launcher)
    layout = parse(Layout, layout.model_dump() | {"device": device}, "--device")
    record = {"layout": layout.model_dump(), "sizes": _sizes(args.sizes), "budget_sec": budget_sec}
    request = parse(CollectivesRequest, record, "the request to the ranks")
    found = start_collectives(
        request, Path(args.folder), site, machine, in_allocation=allocation is not None, quiet=args.json
    )
    return found, {
        "backend": layout.backend,
        "launcher": layout.launcher,
        "nodes": layout.nodes,
        "num_ranks": layout.world_size,
    }


def _sizes(text: str) -> list[int]:
    if not text:
        return list(SIZES)
    parts = text.split(",")
    for part in parts:
        if not part.isdecimal() or int(part) < 1:
            raise SpecError(f"--sizes {text}: {part!r} is no number of bytes", "write e.g. 8,1048576")
    return [int(part) for part in parts]


def micro_text(document: MicroDocument) -> str:
    """At most 100 columns: a table for each part, what was not measured, and what came out wrong."""
    ranks = f", {document.num_ranks} ranks of {document.backend} by {document.launcher}" if document.backend else ""
    lines = [f"{document.host}: {document.accelerator}, {document.device}, {document.num_threads} threads{ranks}"]
    titles = dict(_shapes_titles(document))
    for title, samples in groupby(document.samples, lambda sample: _section(sample, titles)):
        lines += ["", title, _table(list(samples))]
    if document.skipped:
        lines += ["", "not measured:", *(f"  {each.name}: {each.reason}" for each in document.skipped)]
    if document.samples:
        lines += [
            "",
            "±: half the distance between the quartiles. Bytes of kernels are those read and those written.",
        ]
    wrong = [sample.metric for sample in document.samples if not sample.correct]
    return "\n".join([*lines, *(f"WRONG RESULT: {metric}" for metric in wrong)])


def _shapes_titles(document: MicroDocument) -> Iterator[tuple[str, str]]:
    """Of each workload, by the metrics that stand below it: which shapes they are, and how much of a pass."""
    for found in document.coverages:
        title = (
            f"{found.workload} {found.problem} {found.precision}, {found.num_samples} samples a batch: "
            f"the {len(found.shapes)} heaviest of {found.num_shapes} shapes,\n"
            f"{found.share:.0%} of the {si(found.pass_flops)}FLOPs of a forward and backward pass"
        )
        yield from ((shape.metric, title) for shape in found.shapes)
        yield found.together, title


def _section(sample: Sample, titles: Mapping[str, str]) -> str:
    if sample.part == "workloads":
        return titles[sample.metric]
    return "AIBench's twelve kernels" if sample.family == _AIBENCH else sample.part.capitalize()


def _table(samples: Sequence[Sample]) -> str:
    rows = []
    for sample in samples:
        half = (sample.upper_quartile - sample.lower_quartile) / 2 / sample.value
        wrong = f"WRONG: {sample.detail[7 - _WIDEST_DETAIL :]}"
        name = sample.name.removeprefix(f"{_AIBENCH} ")
        rows.append(
            (
                f"{name} {sample.precision}".strip()[:_WIDEST_NAME],
                _value(sample),
                f"±{half:.0%}",
                sample.num_repeats,
                sample.detail[:_WIDEST_DETAIL] if sample.correct else wrong,
            )
        )
    align = ("left", "right", "right", "right", "left")
    return tabulate(rows, ("", "median", "±", "n", "of"), tablefmt="simple", colalign=align)


def _value(sample: Sample) -> str:
    if sample.unit == "s":
        return f"{sample.value * 1e6:,.1f} us"
    if sample.unit == "1/s":
        return f"{sample.value:.4g} /s"
    return quantity(sample.value, sample.unit)
