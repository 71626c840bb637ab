"""The samples that a rank trains and evaluates, which depend only on the seed and the global batch."""

from collections.abc import Iterator

import numpy as np

from hpcai500.spec.run import RunSpec
from hpcai500.train.workload import SampleKey


def shuffled(num_samples: int, seed: int, epoch: int) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    """The order of samples in one epoch, equal on every rank."""
    return np.random.default_rng((seed, epoch)).permutation(num_samples)


def micro_batches(spec: RunSpec, rank: int, epoch: int) -> Iterator[list[SampleKey]]:
    """The micro-batches of `rank` in `epoch`, `spec.samples_per_rank / spec.micro_batch_size` per step.

    The shuffled order is cut into global batches, and each of these into one contiguous share per rank. The tail
    that does not fill a global batch is left out; it differs in each epoch.
    """
    order = shuffled(spec.settings.problem.num_train_samples, spec.seed, epoch)
    global_size, share, micro = (
        spec.settings.batch.global_batch_size,
        spec.samples_per_rank,
        spec.micro_batch_size,
    )
    for step in range(spec.steps_per_epoch):
        start = step * global_size + rank * share
        for position in range(start, start + share, micro):
            yield [SampleKey(epoch, int(index)) for index in order[position : position + micro]]


def eval_batches(spec: RunSpec, rank: int, world_size: int) -> list[range]:
    """The share of `rank` in the evaluation set, cut into batches of the run's micro-batch size."""
    share = eval_share(spec.settings.problem.num_eval_samples, rank, world_size)
    size = spec.micro_batch_size
    return [share[start : start + size] for start in range(0, len(share), size)]


def eval_share(num_samples: int, rank: int, world_size: int) -> range:
    """The share of `rank`. Every sample is in exactly one share, and their sizes differ by at most one."""
    return range(rank, num_samples, world_size)
