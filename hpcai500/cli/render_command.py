"""`hpcai500 render`: print the job scripts that `submit` would run."""

import argparse

from hpcai500.cli.job_scripts import job_scripts
from hpcai500.cli.output import print_json
from hpcai500.cli.site_options import site_of


def main(args: argparse.Namespace) -> int:
    scripts = list(job_scripts(args, site_of(args)))
    if args.json:
        records = [{"script": job.text, "runs": [str(spec.folder) for spec in job.specs]} for job in scripts]
        print_json(records)
    else:
        print("\n".join(job.text for job in scripts), end="")
    return 0
