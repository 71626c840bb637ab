"""`hpcai500 render`: print the job scripts that `submit` would run."""

import argparse

from hpcai500.cli.job_scripts import job_scripts
from hpcai500.cli.output import print_json
from hpcai500.cli.site_options import site_of
from hpcai500.errors import SpecError


def main(args: argparse.Namespace) -> int:
    scripts = list(job_scripts(args, site_of(args)))
    if args.json:
        records = [{"script": job.text, "runs": [str(spec.folder) for spec in job.specs]} for job in scripts]
        print_json(records)
        return 0
    if len(scripts) > 1:
        raise SpecError(
            f"these runs take {len(scripts)} scripts: one for each number of nodes and range of array indices",
            "ask for one number of nodes and fewer seeds, or for --json",
        )
    print(scripts[0].text, end="")
    return 0
