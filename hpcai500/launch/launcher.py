"""What a launcher is: how one program starts ranks, what it tells them, and how it is asked to stop."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from signal import Signals
from typing import ClassVar, Literal, NamedTuple

from hpcai500.errors import RankError, SpecError
from hpcai500.launch.layout import Layout
from hpcai500.spec.site import Site


class RankEnvironment(NamedTuple):
    """The place of one process among the ranks, as its launcher told it."""

    rank: int
    size: int
    local_rank: int
    local_size: int
    """Ranks on this node."""
    start: str = ""
    """A name that the ranks of one start share and no other start has; empty if torchrun brings them together."""


class RankStart(NamedTuple):
    """What decides how ranks are started, beside what they run."""

    layout: Layout
    site: Site = Site()
    in_allocation: bool = False
    """On the nodes of the allocation around us; otherwise all on this machine."""
    folders: tuple[str, ...] = ()
    """Folders that a container mounts under their own names."""
    snapshot: str = ""
    """A folder of code that comes first on PYTHONPATH; empty for none."""
    as_root: bool = False
    python: str = "python3"
    """The interpreter on the machine that starts the ranks."""
    node_index: int = 0
    """The place of this node among several that each start their own ranks."""
    name: str = ""
    """The name of this start, if nodes start their own ranks."""


class StartCommand(NamedTuple):
    argv: tuple[str, ...]
    env: dict[str, str]
    """The whole environment of the new process."""
    stop_signal: Signals = Signals.SIGTERM
    """What makes the launcher ask its ranks to stop."""
    signals_ranks: bool = False
    """The launcher passes no signal on: its ranks, all on this machine, get it themselves."""
    is_asked_once: bool = False
    """The stop signal is sent once; otherwise again and again, until the ranks have heard it."""
    rank_command: tuple[str, ...] = ()
    """What each rank runs; the whole `argv` if the process is the only rank."""


class Launcher(ABC):
    """One way to start ranks. A subclass in a module of `launchers` is all that a new one needs."""

    name: ClassVar[str]
    """What `--launcher`, run.json and site profiles call it."""
    program: ClassVar[str]
    """What its users call the program."""
    backends: ClassVar[tuple[str, ...]] = ("torch", "horovod", "mpi")
    """Communication libraries whose ranks it can start."""
    default_of: ClassVar[tuple[str, ...]] = ()
    """Libraries whose ranks it starts on this machine unless another launcher is asked for."""
    means_here: ClassVar[bool] = False
    """Whoever asks for it asks for this machine, even if an allocation has more nodes."""
    is_offered: ClassVar[bool] = True
    """Users may choose it."""
    starts_here: ClassVar[bool] = True
    """It can start ranks on this machine, outside of any allocation."""
    uses_allocation: ClassVar[bool] = False
    """It can start ranks on all nodes of the allocation around it."""
    gets_job_signals: ClassVar[bool] = True
    """A signal of the scheduler reaches its ranks; otherwise the job script passes the signal to the launcher."""
    is_exclusive: ClassVar[bool] = False
    """Its variables in a rank of another launcher mean that each rank was started several times."""
    rendezvous: ClassVar[Literal["torchrun", "folder", "mpi"]] = "folder"
    """How ranks of torch find each other: by torchrun's variables, a file that all see, or a broadcast of MPI."""
    rank_variables: ClassVar[tuple[str, ...]]
    size_variables: ClassVar[tuple[str, ...]]
    """Variables that hold a process's rank and the number of ranks; the first that is set counts."""
    stop_signal: ClassVar[Signals] = Signals.SIGTERM
    signals_ranks: ClassVar[bool] = False
    is_asked_once: ClassVar[bool] = False
    """It hears the first stop signal for sure, and would take a second one for an order to end at once."""

    @abstractmethod
    def tokens(self, start: RankStart) -> tuple[str, ...]:
        """All that stands before a rank's own command."""

    def argv(self, start: RankStart, command: tuple[str, ...]) -> tuple[str, ...]:
        """The whole command that starts ranks which each run `command`."""
        return (*self.tokens(start), *command)

    def environment(self, start: RankStart, env: Mapping[str, str]) -> dict[str, str]:
        """Variables of its own that the ranks need, if it is started from where `env` is."""
        return {}

    def missing(self, backend: str, *, packages_only: bool = False) -> Iterator[tuple[str, str]]:
        """Names of what is not installed here, each with how to get it.

        With `packages_only`, only this Python's packages: programs may be on the nodes.
        """
        yield from ()

    def rank_environment(self, env: Mapping[str, str]) -> RankEnvironment:
        """The place of this process; unused if ranks meet by MPI.

        Raises:
            KeyError, ValueError: if this launcher did not start the process.
        """
        raise KeyError(self.rank_variables[0])

    def require(self, layout: Layout, site: Site, env: Mapping[str, str], *, in_allocation: bool) -> None:
        """Refuse a layout that it cannot start.

        Raises:
            SpecError: with what it can start instead.
        """
        if layout.backend not in self.backends:
            raise SpecError(
                f"launcher {self.name} starts no ranks of backend {layout.backend}, only of "
                f"{' and '.join(self.backends)}",
                "use --launcher mpirun, which starts all, or leave --launcher out",
            )
        if not in_allocation and not self.starts_here:
            raise SpecError(
                f"--launcher {self.name} outside of an allocation", "use `hpcai500 submit`, or salloc or sbatch first"
            )
        if not in_allocation and layout.nodes > 1:
            raise SpecError(
                f"launcher {self.name} starts ranks on this machine only, not on {layout.nodes} nodes",
                "use `hpcai500 submit`, or salloc or sbatch first",
            )

    def num_copies(self, env: Mapping[str, str]) -> int:
        """How many processes like this one it started, by `env`; 0 if it started none."""
        return self.num_started(env) or 0

    def rank(self, env: Mapping[str, str]) -> int:
        """This process's rank, by the launcher's word; 0 if unknown."""
        return _number(env, self.rank_variables) or 0

    def num_started(self, env: Mapping[str, str]) -> int | None:
        """How many ranks it started, by its own word; None if unknown."""
        return _number(env, self.size_variables)

    def wrong_size_remedy(self, library: str) -> str:
        """How to fix ranks that `library` sees as a world of another size."""
        return "start it with `hpcai500 run` or its job script"

    def require_rank_environment(self, env: Mapping[str, str]) -> RankEnvironment:
        """The place of this process.

        Raises:
            RankError: if this launcher did not start the process.
        """
        try:
            return self.rank_environment(env)
        except (KeyError, ValueError) as error:
            raise RankError(
                f"launcher {self.name} left no {error} in the environment",
                "start runs with `hpcai500 run` or a job script",
            ) from error


def _number(env: Mapping[str, str], names: tuple[str, ...]) -> int | None:
    return next((int(env[name]) for name in names if env.get(name, "").isdigit()), None)
