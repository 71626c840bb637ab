"""`hpcai500 site check|show|list`."""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

from hpcai500.cli.output import print_json
from hpcai500.cli.site_options import site_with
from hpcai500.errors import InputError
from hpcai500.launch.slurm.cluster import ask_cluster
from hpcai500.launch.slurm.site_check import SiteFinding, check_paths, check_site, check_submission, groups_of_user
from hpcai500.spec.site import Site, find_sites


def main(args: argparse.Namespace) -> int:
    if args.action == "list":
        known = {name: str(path) for name, path in find_sites().items()}
        print_json(known) if args.json else print("\n".join(f"{name}: {path}" for name, path in known.items()))
        return 0
    if not args.site:
        raise InputError(f"site {args.action}: which one?", "`hpcai500 site list` names them")
    site = site_with(args.site, args.slurm)
    if args.action == "show":
        print_json(site.model_dump(mode="json")) if args.json else print(toml_text(site), end="")
        return 0
    said = []
    for finding in findings(args, site):
        said.append(finding)
        if not args.json:
            print(f"{finding.level:8}{finding.subject}: {finding.message}", flush=True)
    if args.json:
        print_json({"site": args.site, "findings": [finding._asdict() for finding in said]})
    return int(any(finding.level == "error" for finding in said))


def findings(args: argparse.Namespace, site: Site) -> Iterator[SiteFinding]:
    """What a job there would fail of, the cheapest question first."""
    nodes = args.nodes if args.nodes is not None else site.slurm.nodes
    if nodes < 1:
        raise InputError(f"--nodes {nodes}: not a number of nodes", "give 1 or more")
    yield from check_site(site, nodes, ask_cluster(), groups_of_user())
    yield check_submission(site, nodes)
    if not args.no_job:
        folders = [place for place in site.places.data.values() if isinstance(place, str)]
        folders += [place for of in site.places.data.values() if isinstance(of, dict) for place in of.values()]
        yield from check_paths(site, folders, str(Path(site.places.results or "results").absolute()))


def toml_text(site: Site) -> str:
    """The profile as a file that gives every key."""
    lines = [f"system = {_toml(site.system)}"]
    for table, values in site.model_dump(mode="json", exclude={"system"}).items():
        lines += ["", f"[{table}]", *(f"{key} = {_toml(value)}" for key, value in values.items())]
    return "\n".join(lines) + "\n"


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, dict):
        inside = ", ".join(f"{_toml(key)} = {_toml(item)}" for key, item in value.items())
        return f"{{ {inside} }}" if inside else "{}"
    return json.dumps(value, ensure_ascii=False)
