"""Starting ranks: the command and its environment follow from a worker, a layout and a machine."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from hpcai500.launch.container import run_mounts, site_python
from hpcai500.launch.environment import Machine, clean, fabric_variables, thread_variables
from hpcai500.launch.launcher import Launcher, RankStart, StartCommand
from hpcai500.launch.layout import layout_of
from hpcai500.launch.process import run_ranks
from hpcai500.launch.registry import find_launcher
from hpcai500.spec.run import RunSpec
from hpcai500.spec.site import Site

TRAINING = "hpcai500.train.worker"


class Worker(NamedTuple):
    """The command of each rank: `python -m module arguments…`."""

    module: str
    arguments: tuple[str, ...]
    folders: tuple[str, ...] = ()
    """Folders that it reads and writes, which a container mounts."""
    environment: Mapping[str, str] = MappingProxyType({})
    computes: bool = True
    """Whether it computes with several threads, on its share of the cores."""


def start_command(worker: Worker, start: RankStart, machine: Machine) -> StartCommand:
    """The command that starts `worker` as `start` describes, and the environment of the new process.

    On other nodes each rank chooses its number of threads itself, since only it sees the cores there.
    """
    launcher = find_launcher(start.layout.launcher)
    python = site_python(start.site, machine.python) if start.in_allocation else machine.python
    command = (python, "-m", worker.module, *worker.arguments)
    start = start._replace(python=machine.python, as_root=machine.as_root, folders=worker.folders)
    environment = clean(machine.env)
    if start.in_allocation:
        environment |= start_environment(launcher, start, machine.env)
    else:
        environment |= launcher.environment(start, machine.env)
        if worker.computes:
            environment |= thread_variables(machine, start.layout.procs_per_node)
    return StartCommand(
        launcher.argv(start, command),
        environment | dict(worker.environment),
        launcher.stop_signal,
        launcher.signals_ranks,
        launcher.is_asked_once,
        command,
    )


def start_environment(launcher: Launcher, start: RankStart, env: Mapping[str, str]) -> dict[str, str]:
    """The variables of every rank in an allocation: the fabric, the launcher's, and what the site sets.

    `env` is that of the process that starts the launcher, on a node of the allocation or on a login node.
    """
    cores = env.get("SLURM_CPUS_PER_TASK", "")
    own = {"SRUN_CPUS_PER_TASK": cores} if cores else {}  # srun does not inherit it by itself
    site = start.site
    return own | fabric_variables(site) | launcher.environment(start, env) | site.software.environment


def training_worker(spec: RunSpec) -> Worker:
    return Worker(TRAINING, (str(spec.folder / "run.json"),), run_mounts(spec), run_environment(spec))


def run_environment(spec: RunSpec) -> dict[str, str]:
    """The variables that a run's own settings need."""
    if not spec.settings.execution.deterministic:
        return {}
    unfused = {"HOROVOD_FUSION_THRESHOLD": "0"} if spec.backend == "horovod" else {}
    return {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"} | unfused  # which tensors Horovod sums together depends on timing


def train(
    spec: RunSpec, machine: Machine, *, site: Site | None = None, in_allocation: bool = False, quiet: bool = False
) -> None:
    """Start all ranks of a run and wait for them.

    Raises:
        HpcAi500Error: with the first rank's reason and exit code. events.log then ends with `run_stop`, unless the
            run was asked to stop and can be resumed.
    """
    start = RankStart(layout_of(spec), site or Site(), in_allocation=in_allocation)
    run_ranks(start_command(training_worker(spec), start, machine), spec, quiet=quiet)
