"""horovodrun without MPI, for ranks of Horovod on this machine."""

from collections.abc import Iterator
from signal import Signals

from hpcai500.launch.launcher import Launcher, RankStart
from hpcai500.launch.software import HOW_TO_GET_HOROVOD, has_package


class Horovodrun(Launcher):
    name = "horovodrun"
    program = "horovodrun"
    backends = ("horovod",)
    default_of = ("horovod",)
    is_exclusive = True
    rank_variables = ("HOROVOD_RANK",)
    size_variables = ("HOROVOD_SIZE",)
    stop_signal = Signals.SIGUSR1  # at SIGTERM it gives its ranks five seconds
    signals_ranks = True

    def tokens(self, start: RankStart) -> tuple[str, ...]:
        number = start.layout.world_size
        hosts = ("-np", str(number), "-H", f"localhost:{number}")
        return (start.python, "-m", "horovod.runner.launch", *hosts, "--gloo", "--disable-cache")

    def missing(self, backend: str, *, packages_only: bool = False) -> Iterator[tuple[str, str]]:
        if backend != "horovod" and not has_package("horovod"):
            yield "Horovod", HOW_TO_GET_HOROVOD


LAUNCHER = Horovodrun()
