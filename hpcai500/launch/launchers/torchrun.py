"""torchrun, for ranks of torch on this machine. A single rank is started directly, without a launcher."""

from collections.abc import Mapping

from hpcai500.errors import SpecError
from hpcai500.launch.launcher import Launcher, RankEnvironment, RankStart
from hpcai500.launch.layout import Layout
from hpcai500.spec.site import Site


class Torchrun(Launcher):
    name = "local"
    program = "torchrun"
    backends = ("torch", "horovod")
    default_of = ("torch",)
    means_here = True
    is_asked_once = True  # it takes a second signal as an order to end
    rendezvous = "torchrun"
    rank_variables = ("RANK",)
    size_variables = ("WORLD_SIZE",)

    def tokens(self, start: RankStart) -> tuple[str, ...]:
        if start.layout.world_size == 1:
            return ()
        procs = f"--nproc-per-node={start.layout.procs_per_node}"
        return (start.python, "-m", "torch.distributed.run", "--standalone", procs)

    def argv(self, start: RankStart, command: tuple[str, ...]) -> tuple[str, ...]:
        tokens = self.tokens(start)
        return (*tokens, "--module", *command[2:]) if tokens else command  # torchrun starts the interpreter itself

    def environment(self, start: RankStart, env: Mapping[str, str]) -> dict[str, str]:
        return {"GLOO_SOCKET_IFNAME": "lo"}

    def rank_environment(self, env: Mapping[str, str]) -> RankEnvironment:
        if "RANK" not in env:
            return RankEnvironment(0, 1, 0, 1)
        return RankEnvironment(
            int(env["RANK"]), int(env["WORLD_SIZE"]), int(env["LOCAL_RANK"]), int(env["LOCAL_WORLD_SIZE"])
        )

    def require(self, layout: Layout, site: Site, env: Mapping[str, str], *, in_allocation: bool) -> None:
        super().require(layout, site, env, in_allocation=in_allocation)
        if layout.backend == "horovod" and layout.world_size > 1:
            raise SpecError(
                "launcher local starts several ranks of backend torch only", "use --launcher horovodrun or mpirun"
            )

    def num_copies(self, env: Mapping[str, str]) -> int:
        return super().num_copies(env) if "TORCHELASTIC_RUN_ID" in env else 0  # WORLD_SIZE may have another origin


LAUNCHER = Torchrun()
