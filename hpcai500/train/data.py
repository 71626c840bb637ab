"""A run's data: staged, opened and compared with the problem's definition; or random batches instead."""

from pathlib import Path

from hpcai500.errors import DataError
from hpcai500.events.payloads import Dataset, DatasetIdentity, Input, InputPipeline, StagingStart, StagingStop
from hpcai500.ranks.torch_ranks import Ranks
from hpcai500.spec.models import parse
from hpcai500.spec.run import RunSpec
from hpcai500.train.journal import Journal
from hpcai500.train.synthetic import SyntheticData
from hpcai500.train.workload import Workload


def open_data(workload: Workload, spec: RunSpec, ranks: Ranks, journal: Journal, earlier: str | None) -> Workload:
    """The workload with its data set open, checked against the problem's counts and an `earlier` start's digest.

    If the run uses synthetic data, the workload is wrapped in `SyntheticData`.
    """
    if spec.is_synthetic:
        workload = SyntheticData(workload)
        workload.open_data(Path(spec.data), ranks)
        journal.log(Dataset(value=DatasetIdentity(synthetic=True)))
        return workload
    if spec.staging:
        stage_data(workload, spec, ranks, journal)
    info = workload.open_data(Path(spec.data), ranks)
    problem = spec.settings.problem
    expected = (problem.num_train_samples, problem.num_eval_samples)
    if (info.num_train_samples, info.num_eval_samples) != expected:
        raise DataError(
            f"{spec.data}: holds {info.num_train_samples:,} training and {info.num_eval_samples:,} evaluation "
            f"samples; problem {spec.problem!r} is defined on {expected[0]:,} and {expected[1]:,}",
            f"complete the data set, or see `hpcai500 data verify {spec.workload.name}`",
        )
    journal.log(Input(value=parse(InputPipeline, info.reading or {}, f"{spec.workload.folder}: DatasetInfo.reading")))
    if earlier and info.digest != earlier:
        raise DataError(
            f"{spec.data}: the data set's digest is {info.digest:.40}, and was {earlier:.40} when the run began",
            "restore the data set, or start a new run with another --output",
        )
    identity = DatasetIdentity(
        synthetic=False,
        digest=info.digest,
        num_train_samples=info.num_train_samples,
        num_eval_samples=info.num_eval_samples,
    )
    journal.log(Dataset(value=identity))
    return workload


def stage_data(workload: Workload, spec: RunSpec, ranks: Ranks, journal: Journal) -> None:
    """Have each node's first rank copy the data to the node's own disk."""
    journal.log(StagingStart())
    if ranks.local_rank == 0:
        workload.stage_data(Path(spec.data), Path(spec.staging))
    ranks.barrier()
    journal.log(StagingStop())
