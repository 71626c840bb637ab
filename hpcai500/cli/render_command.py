"""`hpcai500 render`: print the job script of a run, or of an array of runs."""

import argparse
import sys

from hpcai500.cli.output import print_json
from hpcai500.cli.site_options import runs_at, site_of
from hpcai500.launch.script import array_offset, job_template, plan_job, render_job


def main(args: argparse.Namespace) -> int:
    site = site_of(args)
    specs = runs_at(args, site)
    plan = plan_job(
        specs,
        site,
        python=sys.executable,
        array_offset=array_offset([spec.seed for spec in specs]),
        carry_run_json=True,
    )
    script = render_job(plan, job_template())
    if args.json:
        print_json({"script": script, "runs": [str(spec.folder) for spec in specs]})
    else:
        print(script, end="")
    return 0
