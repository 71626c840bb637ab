"""Running a run's ranks inside the Slurm allocation around us."""

import os
import sys

from hpcai500.launch.allocation.slurm import own_job_id
from hpcai500.launch.plan import plan_step
from hpcai500.launch.process import run_plan
from hpcai500.spec.run import RunSpec
from hpcai500.spec.site import Site


def run_in_allocation(spec: RunSpec, site: Site, *, quiet: bool = False) -> None:
    """Start the ranks on the allocation's nodes by srun or mpirun, as the run has it, and wait for them.

    Raises:
        HpcAi500Error: as `run_local` does.
    """
    env = dict(os.environ)
    with (spec.folder / "logs" / "jobs").open("a", encoding="ascii") as file:
        file.write(f"{own_job_id(env)} {env['SLURM_JOB_ID']} {env.get('SLURM_RESTART_COUNT', '0')}\n")
    plan = plan_step(spec, site, python=sys.executable, env=env, as_root=os.geteuid() == 0)
    run_plan(plan, spec, quiet=quiet)
