"""The base class of launchers: how a program starts ranks, which variables it sets, and how to stop it."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from signal import Signals
from typing import ClassVar, Literal, NamedTuple

from hpcai500.errors import RankError, SpecError
from hpcai500.launch.layout import Layout
from hpcai500.spec.site import Site


class RankEnvironment(NamedTuple):
    """The rank of one process and its node, as its launcher reports them."""

    rank: int
    size: int
    local_rank: int
    local_size: int
    """Ranks on this node."""
    start: str = ""
    """A name that only the ranks of one start share; empty if torchrun connects them."""


class RankStart(NamedTuple):
    """Everything that decides how ranks are started, except what they run."""

    layout: Layout
    site: Site = Site()
    in_allocation: bool = False
    """Whether ranks run on the nodes of the allocation around us; otherwise all run on this machine."""
    folders: tuple[str, ...] = ()
    """Folders that a container mounts under the same path."""
    snapshot: str = ""
    """A folder of code that comes first on PYTHONPATH; empty for none."""
    as_root: bool = False
    python: str = "python3"
    """The interpreter on the machine that starts the ranks."""
    node_index: int = 0
    """The index of this node, if several nodes each start their own ranks."""
    name: str = ""
    """The name of this start, if nodes start their own ranks."""


class StartCommand(NamedTuple):
    argv: tuple[str, ...]
    env: dict[str, str]
    """The whole environment of the new process."""
    stop_signal: Signals = Signals.SIGTERM
    """The signal at which the launcher asks its ranks to stop."""
    signals_ranks: bool = False
    """Whether the ranks, all on this machine, get the signal directly because the launcher does not pass it on."""
    is_asked_once: bool = False
    """Whether the stop signal is sent only once; otherwise it is repeated until the ranks have ended."""
    rank_command: tuple[str, ...] = ()
    """The command of each rank; equal to `argv` if the process is the only rank."""


class Launcher(ABC):
    """One way to start ranks. A new launcher needs only a subclass in a module of `launchers`."""

    name: ClassVar[str]
    """The name in `--launcher`, run.json and site profiles."""
    program: ClassVar[str]
    """The name of the program, for messages."""
    backends: ClassVar[tuple[str, ...]] = ("torch", "horovod", "mpi")
    """Communication libraries whose ranks it can start."""
    default_of: ClassVar[tuple[str, ...]] = ()
    """Communication libraries for which it is the default on this machine."""
    means_here: ClassVar[bool] = False
    """Whether asking for it means this machine, even if an allocation has more nodes."""
    is_offered: ClassVar[bool] = True
    """Whether users may choose it."""
    starts_here: ClassVar[bool] = True
    """Whether it can start ranks on this machine, outside of any allocation."""
    uses_allocation: ClassVar[bool] = False
    """Whether it can start ranks on all nodes of the allocation around it."""
    gets_job_signals: ClassVar[bool] = True
    """Whether the scheduler's signals reach its ranks; otherwise the job script passes them to the launcher."""
    is_exclusive: ClassVar[bool] = False
    """Whether its variables in a rank of another launcher mean that each rank was started several times."""
    rendezvous: ClassVar[Literal["torchrun", "folder", "mpi"]] = "folder"
    """How ranks of torch find each other: by torchrun's variables, by a shared file, or by an MPI broadcast."""
    rank_variables: ClassVar[tuple[str, ...]]
    size_variables: ClassVar[tuple[str, ...]]
    """Variables with a process's rank and the number of ranks; the first that is set counts."""
    stop_signal: ClassVar[Signals] = Signals.SIGTERM
    signals_ranks: ClassVar[bool] = False
    is_asked_once: ClassVar[bool] = False
    """Whether it always receives the first stop signal, and takes a second one as an order to end at once."""

    @abstractmethod
    def tokens(self, start: RankStart) -> tuple[str, ...]:
        """Everything before a rank's own command."""

    def argv(self, start: RankStart, command: tuple[str, ...]) -> tuple[str, ...]:
        """The whole command that starts ranks, each of which runs `command`."""
        return (*self.tokens(start), *command)

    def environment(self, start: RankStart, env: Mapping[str, str]) -> dict[str, str]:
        """The variables that its ranks need in addition; `env` is that of the process that starts it."""
        return {}

    def missing(self, backend: str, *, packages_only: bool = False) -> Iterator[tuple[str, str]]:
        """Names of programs and packages that are not installed here, each with how to install it.

        With `packages_only`, only packages of this Python, since programs may be installed on the nodes.
        """
        yield from ()

    def rank_environment(self, env: Mapping[str, str]) -> RankEnvironment:
        """The rank of this process; unused if the rendezvous is by MPI.

        Raises:
            KeyError, ValueError: if this launcher did not start the process.
        """
        raise KeyError(self.rank_variables[0])

    def require(self, layout: Layout, site: Site, env: Mapping[str, str], *, in_allocation: bool) -> None:
        """Refuse a layout that this launcher cannot start.

        Raises:
            SpecError: with a hint what it can start instead.
        """
        if layout.backend not in self.backends:
            raise SpecError(
                f"launcher {self.name} starts no ranks of backend {layout.backend}, only of "
                f"{' and '.join(self.backends)}",
                "use --launcher mpirun, which starts all of them, or leave --launcher out",
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
        """How many processes like this one it started, according to `env`; 0 if it started none."""
        return self.num_started(env) or 0

    def rank(self, env: Mapping[str, str]) -> int:
        """This process's rank, according to the launcher; 0 if unknown."""
        return _number(env, self.rank_variables) or 0

    def num_started(self, env: Mapping[str, str]) -> int | None:
        """How many ranks it started, according to its own variables; None if unknown."""
        return _number(env, self.size_variables)

    def wrong_size_remedy(self, library: str) -> str:
        """How to fix ranks for which `library` reports another number of ranks."""
        return "start it with `hpcai500 run` or its job script"

    def require_rank_environment(self, env: Mapping[str, str]) -> RankEnvironment:
        """`rank_environment`, with an error for the user.

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
