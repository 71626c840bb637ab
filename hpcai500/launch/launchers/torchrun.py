"""torchrun, for ranks of torch on this machine; a single rank needs no launcher and is started directly."""

from collections.abc import Mapping

from hpcai500.errors import SpecError
from hpcai500.launch.launcher import Launcher, RankEnvironment, Step
from hpcai500.launch.layout import Layout
from hpcai500.spec.site import Site


class Torchrun(Launcher):
    name = "local"
    program = "torchrun"
    backends = ("torch", "horovod")
    default_of = ("torch",)
    means_here = True
    is_asked_once = True  # a second signal is an order to end
    meeting = "torchrun"
    rank_variables = ("RANK",)
    size_variables = ("WORLD_SIZE",)

    def tokens(self, step: Step) -> tuple[str, ...]:
        if step.layout.world_size == 1:
            return ()
        procs = f"--nproc-per-node={step.layout.procs_per_node}"
        return (step.python, "-m", "torch.distributed.run", "--standalone", procs)

    def argv(self, step: Step, command: tuple[str, ...]) -> tuple[str, ...]:
        tokens = self.tokens(step)
        return (*tokens, "--module", *command[2:]) if tokens else command  # torchrun has an interpreter of its own

    def environment(self, step: Step, env: Mapping[str, str]) -> dict[str, str]:
        return {"GLOO_SOCKET_IFNAME": "lo"}

    def place(self, env: Mapping[str, str]) -> RankEnvironment:
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
        return super().num_copies(env) if "TORCHELASTIC_RUN_ID" in env else 0  # WORLD_SIZE may be anyone's


LAUNCHER = Torchrun()
