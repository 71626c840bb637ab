"""Options that shorten the shipped workloads' mini problems, and what a run's log says of its training."""

from hpcai500.events.reader import find, read_events
from hpcai500.events.vocabulary import Key

SMALL = (
    "--unranked", "--set", "problem.num_train_samples=40", "--set", "problem.num_eval_samples=10",
    "--set", "problem.num_epochs=2", "--set", "batch.global_batch_size=16", "--set", "batch.micro_batch_size=4",
    "--set", "optimizer.learning_rate=0.01",
)  # fmt: skip
FEW_FRAMES = (
    "--unranked", "--set", "data.train_years=[1979]", "--set", "problem.num_train_samples=8",
    "--set", "problem.num_eval_samples=8", "--set", "problem.num_epochs=2", "--set", "batch.micro_batch_size=1",
    "--set", "execution.num_flop_batches=2",
)  # fmt: skip


def losses(folder):
    return [event.value["train_loss"] for event in find(read_events(folder / "events.log"), Key.EPOCH)]
