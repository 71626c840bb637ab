"""Trainers as a run builds them, for scripts that time their steps."""

from typing import Any

from hpcai500.ranks.torch_ranks import Ranks
from hpcai500.spec.levels import Level
from hpcai500.spec.record import SYNTHETIC
from hpcai500.spec.run import RunSpec, resolve
from hpcai500.train.build import build
from hpcai500.train.journal import open_journal
from hpcai500.train.loop import Trainer
from hpcai500.train.preemption import StopRequest
from hpcai500.train.resumption import Resumption


def trial_spec(
    workload: str, problem: str, output: str, overrides: dict[str, Any], *, data: str = SYNTHETIC, ranks: int = 1
) -> RunSpec:
    """A trial run with `overrides`, as in `--set`."""
    return resolve(
        workload,
        problem=problem,
        level=Level.FREE,
        seed=0,
        overrides=overrides,
        unranked=True,
        system="bench",
        data=data,
        output=output,
        procs_per_node=ranks,
    )


def trainer_of(spec: RunSpec, ranks: Ranks) -> Trainer:
    """A trainer as before a run's clock starts: cores, data, model, FLOP count, compilation."""
    if ranks.rank == 0:
        spec.write()
    ranks.barrier()
    return build(spec, ranks, open_journal(spec, ranks.rank), StopRequest(), Resumption())


def train_steps(trainer: Trainer, num_steps: int) -> None:
    """Train steps on random batches, and wait for the device."""
    share = [[None] * trainer.spec.micro_batch_size] * (trainer.num_micro_batches * num_steps)
    batches = iter(trainer.workload.train_batches(share))
    for _ in range(num_steps):
        trainer.train_step(batches, 1e-3)
    trainer.clock.read_sec()
