"""A short training run on each node by itself and on all together: speed, scaling, and equal losses."""

from collections.abc import Iterator

from hpcai500.events.payloads import EpochReport
from hpcai500.events.reader import read_events
from hpcai500.events.typed import payloads
from hpcai500.launch.environment import this_machine
from hpcai500.launch.launcher import RankStart
from hpcai500.launch.launchers.per_node import PerNode
from hpcai500.launch.launchers.torchrun import Torchrun
from hpcai500.launch.layout import layout_of
from hpcai500.launch.process import execute
from hpcai500.launch.start import start_command, train, training_worker
from hpcai500.spec.levels import Level
from hpcai500.spec.record import SYNTHETIC
from hpcai500.spec.run import RunSpec, resolve
from hpcai500.system.devices import num_gpus
from hpcai500.validate.agent.children import run_children
from hpcai500.validate.agent.seat import Seat
from hpcai500.validate.files import Measurement, Observation

_STEPS = {1: 3, 2: 10, 3: 30}
"""Steps per epoch, by level. The first epoch is for warm-up; the second counts."""
_EPOCHS = 2
_BATCH_A_RANK = 16


def run(seat: Seat) -> Iterator[Observation]:
    yield from run_children(seat, "training", [("alone",)])
    if len(seat.members) < 2:
        return
    members = list(seat.members)
    if seat.leads:
        together_spec(seat, members).write()
    seat.step("training", "together")
    seat.wait("training: together")
    if seat.members == members:
        yield from run_children(seat, "training", [("together", ",".join(members))])


def measure(seat: Seat, company: str, names: str = "") -> Iterator[Observation]:
    """In a child process: start this node's ranks of one run, and report its speed and loss."""
    if company == "alone":
        spec = short_spec(seat, 1, seat.node, Torchrun.name)
        spec.write()
        train(spec, this_machine(), quiet=True)
        yield from _figures(spec, "alone", (seat.node,))
        return
    members = names.split(",")
    spec = together_spec(seat, members)
    index = members.index(seat.node)
    start = RankStart(layout_of(spec), node_index=index, name="training")
    log = seat.folder / "logs" / f"{seat.node}-training.log"
    if failure := execute(start_command(training_worker(spec), start, this_machine()), log, quiet=True):
        raise failure
    if index == 0:
        yield from _figures(spec, "together", tuple(sorted(members)))


def together_spec(seat: Seat, members: list[str]) -> RunSpec:
    return short_spec(seat, len(members), "together", PerNode.name)


def short_spec(seat: Seat, nodes: int, name: str, launcher: str) -> RunSpec:
    """A few deterministic steps of Image Classification's mini problem on synthetic data.

    The batch grows with the number of ranks, so that each has the same work.
    """
    procs = max(1, num_gpus())
    batch = _BATCH_A_RANK * procs * nodes
    overrides = {
        "problem.num_epochs": _EPOCHS,
        "problem.num_train_samples": batch * _STEPS[seat.plan.level],
        "problem.num_eval_samples": batch,
        "batch.global_batch_size": batch,
        "batch.micro_batch_size": _BATCH_A_RANK,
        "execution.deterministic": True,
    }
    return resolve(
        "image_classification",
        problem="mini",
        level=Level.FREE,
        seed=0,
        overrides=overrides,
        unranked=True,
        launcher=launcher,
        nodes=nodes,
        procs_per_node=procs,
        system=seat.plan.system,
        data=SYNTHETIC,
        output=str(seat.folder / "training" / name),
    )


def _figures(spec: RunSpec, company: str, nodes: tuple[str, ...]) -> Iterator[Measurement]:
    """Samples per second of one node in the last epoch, and the loss to its last digit."""
    last = payloads(read_events(spec.folder / "events.log"), EpochReport)[-1].value
    rate = last.num_samples / last.train_sec / spec.nodes
    yield Measurement(
        stage="training", metric=f"{company}_samples_per_sec", unit="1/s", value=rate, better="higher", nodes=nodes,
        detail="of one node",
    )  # fmt: skip
    yield Measurement(
        stage="training",
        metric=f"{company}_loss",
        unit="",
        value=repr(last.train_loss),
        better="same",
        nodes=nodes,
    )
