"""The site that `--site` and `--slurm` name, and the runs that an experiment's options ask for there."""

import argparse
from collections.abc import Sequence

from hpcai500.cli.run_command import resolve_seeds
from hpcai500.errors import SpecError
from hpcai500.launch.layout import Layout
from hpcai500.launch.registry import job_launcher
from hpcai500.launch.requirements import require_software
from hpcai500.spec.models import parse
from hpcai500.spec.run import RunSpec, parse_overrides, parse_seeds
from hpcai500.spec.site import Site, load_site, with_site_overrides
from hpcai500.system.host import host_name


def site_of(args: argparse.Namespace) -> Site:
    """The profile of `--site`, with the values of `--slurm` and `--parallel` in it."""
    site = site_with(args.site, args.slurm)
    return site if args.parallel is None else with_site_overrides(site, {"slurm.max_parallel": args.parallel})


def site_with(name: str, assignments: Sequence[str]) -> Site:
    """The profile of a name or path, none for an empty one, with the values of `--slurm KEY=VALUE` in it."""
    for assignment in assignments:
        if "=" not in assignment:
            raise SpecError(f"--slurm {assignment}: no value", "write --slurm key=value")
    return with_site_overrides(load_site(name) if name else Site(), parse_overrides(assignments))


def runs_at(args: argparse.Namespace, site: Site) -> list[list[RunSpec]]:
    """One run a seed, for each number of nodes that is asked for, or that `site` gives."""
    if not site.software.python and site.container.engine == "none":  # the nodes run this very Python
        require_software(args.backend, site.slurm.launcher, packages_only=True)
    procs_per_node = args.procs_per_node if args.procs_per_node is not None else site.slurm.procs_per_node
    seeds = parse_seeds(args.seeds)
    system = site.system or host_name()
    counts = parse_counts(args.nodes) if args.nodes else [site.slurm.nodes]
    layouts = [layout_at(site, args.backend, nodes, procs_per_node) for nodes in counts]
    return [resolve_seeds(args, seeds, layout, site, system) for layout in layouts]


def layout_at(site: Site, backend: str, nodes: int, procs_per_node: int) -> Layout:
    """The layout of a job at `site`.

    Raises:
        SpecError: if the site's launcher cannot start it.
    """
    launcher = job_launcher(site.slurm.launcher)
    record = {"launcher": launcher.name, "backend": backend, "nodes": nodes, "procs_per_node": procs_per_node}
    layout = parse(Layout, record, "the ranks")
    launcher.require(layout, site, {}, in_allocation=True)
    return layout


def parse_counts(text: str) -> list[int]:
    """`1,2,4` as numbers."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdigit() and int(part) > 0 for part in parts) or len(set(parts)) < len(parts):
        raise SpecError(f"--nodes {text}: not different whole numbers of nodes", "write e.g. 4, or 1,2,4")
    return [int(part) for part in parts]
