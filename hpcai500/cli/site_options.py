"""The site that `--site` and `--slurm` name, and the runs that an experiment's options ask for there."""

import argparse
from collections.abc import Sequence

from hpcai500.cli.run_command import Layout, host_name, resolve_seed
from hpcai500.errors import SpecError
from hpcai500.spec.run import RunSpec, parse_overrides, parse_seeds
from hpcai500.spec.site import Site, load_site, with_site_overrides


def site_of(args: argparse.Namespace) -> Site:
    """The profile of `--site`, with the values of `--slurm` in it."""
    return site_with(args.site, args.slurm)


def site_with(name: str, assignments: Sequence[str]) -> Site:
    """The profile of a name or path, with the values of `--slurm KEY=VALUE` in it."""
    for assignment in assignments:
        if "=" not in assignment:
            raise SpecError(f"--slurm {assignment}: no value", "write --slurm key=value")
    return with_site_overrides(load_site(name), parse_overrides(assignments))


def runs_at(args: argparse.Namespace, site: Site) -> list[RunSpec]:
    """One run a seed, on nodes that `site` gives."""
    procs_per_node = args.procs_per_node if args.procs_per_node is not None else site.slurm.procs_per_node
    nodes = args.nodes if args.nodes is not None else site.slurm.nodes
    layout = Layout("srun", nodes, procs_per_node, 0, site.system or host_name())
    return [resolve_seed(args, seed, layout, site) for seed in parse_seeds(args.seeds)]
