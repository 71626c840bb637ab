"""Running a run's ranks inside the Slurm allocation around us."""

from hpcai500.launch.allocation.slurm import own_job_id
from hpcai500.launch.environment import Machine
from hpcai500.launch.start import train
from hpcai500.spec.run import RunSpec
from hpcai500.spec.site import Site


def train_in_allocation(spec: RunSpec, site: Site, machine: Machine, *, quiet: bool = False) -> None:
    """Start the ranks on the allocation's nodes with the run's launcher, and wait for them.

    Raises:
        HpcAi500Error: as `train` does.
    """
    env = machine.env
    with (spec.folder / "logs" / "jobs").open("a", encoding="ascii") as file:
        file.write(f"{own_job_id(env)} {env['SLURM_JOB_ID']} {env.get('SLURM_RESTART_COUNT', '0')}\n")
    train(spec, machine, site=site, in_allocation=True, quiet=quiet)
