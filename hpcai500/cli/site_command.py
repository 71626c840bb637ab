"""`hpcai500 site check|show|list`: check a site's profile on its cluster, show it, or list all."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from hpcai500.cli.options import Commands, add_action, add_actions, add_site_values, site_of
from hpcai500.cli.output import print_json

if TYPE_CHECKING:
    from hpcai500.cli.options import Parser
    from hpcai500.spec.site import Site


def add_parser(commands: Commands) -> None:
    actions = add_actions(commands, "site", "check a site's profile on its cluster; show it; list all")

    check = add_action(actions, "check", main_check, "what would make a job fail there, asked of Slurm and of a node")
    _add_site(check)
    check.add_argument("--nodes", type=int, metavar="N", help="nodes of a job (default: the profile's)")
    check.add_argument("--no-job", action="store_true", help="start nothing; leaves paths unchecked")

    _add_site(add_action(actions, "show", main_show, "a profile with every key"))

    add_action(actions, "list", main_list, "all profiles, and their files")


def _add_site(parser: Parser) -> None:
    parser.add_argument("site", help="a profile's name, or a path to your own .toml")
    add_site_values(parser)


def main_check(args: argparse.Namespace) -> int:
    from hpcai500.launch.slurm.site_check import check_all

    findings = []
    for finding in check_all(_site(args), args.nodes, starts_job=not args.no_job):
        findings.append(finding)
        if not args.json:
            print(f"{finding.level:8}{finding.subject}: {finding.message}", flush=True)
    if args.json:
        print_json({"site": args.site, "findings": [finding._asdict() for finding in findings]})
    return int(any(finding.level == "error" for finding in findings))


def main_show(args: argparse.Namespace) -> int:
    from hpcai500.report.site import site_toml

    site = _site(args)
    print_json(site.model_dump(mode="json")) if args.json else print(site_toml(site), end="")
    return 0


def main_list(args: argparse.Namespace) -> int:
    from hpcai500.spec.site import find_sites

    known = {name: str(path) for name, path in find_sites().items()}
    print_json(known) if args.json else print("\n".join(f"{name}: {path}" for name, path in known.items()))
    return 0


def _site(args: argparse.Namespace) -> Site:
    return site_of(args.site, args.slurm)
