"""The job scripts of an experiment: what `render` prints and `submit` hands to Slurm."""

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from hpcai500.cli.site_options import runs_at
from hpcai500.launch.slurm.cluster import max_array_size
from hpcai500.launch.slurm.header import log_pattern
from hpcai500.launch.slurm.script import job_template, plan_job, render_job
from hpcai500.launch.slurm.snapshot import take_snapshot
from hpcai500.launch.slurm.submission import split_seeds, submissions_folder
from hpcai500.spec.run import RunSpec
from hpcai500.spec.site import Site


class JobScript(NamedTuple):
    specs: list[RunSpec]
    """The runs of the job, or of the array, in the order of their seeds."""
    text: str
    array_offset: int

    def job_ids(self, job_id: str) -> list[str]:
        """The number of each run's own job."""
        if len(self.specs) == 1:
            return [job_id]
        return [f"{job_id}_{spec.seed - self.array_offset}" for spec in self.specs]


def job_scripts(
    args: argparse.Namespace, site: Site, wanted: Callable[[Sequence[RunSpec]], list[RunSpec]] = list
) -> Iterator[JobScript]:
    """One array over the seeds for each number of nodes, more where the seeds exceed an array.

    Only for the runs that `wanted` picks. Takes a snapshot of the code that the scripts run.
    """
    limit = max_array_size()
    template = job_template()
    for specs in runs_at(args, site):
        chosen = {spec.seed: spec for spec in wanted(specs)}
        if not chosen:
            continue
        for offset, seeds in split_seeds(list(chosen), limit):
            submissions = submissions_folder(chosen[seeds[0]])
            copies = [take_snapshot(chosen[seed]) for seed in seeds]
            plan = plan_job(
                [spec for spec, _ in copies],
                site,
                python=sys.executable,
                log=log_pattern(str(submissions), "%x-%A_%a.out" if len(seeds) > 1 else "%x-%j.out"),
                snapshot=str(copies[0][1]),
                array_offset=offset,
                carry_run_json=True,
                as_root=os.geteuid() == 0,
            )
            yield JobScript([spec for spec, _ in copies], render_job(plan, template), offset)
