"""The payload of each event key: one frozen model per key, which both writes and reads the event.

Optional fields are missing in older logs, or known only to some programs. Other fields of a line are ignored.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, field_validator, model_validator

from hpcai500.events.typed import Lenient, Payload
from hpcai500.events.vocabulary import Key, RunStatus, Type
from hpcai500.spec.models import Frozen

Count = Annotated[int, Field(ge=1)]
FromZero = Annotated[float, Field(ge=0)]


class _Bare(Payload):
    """An event whose time is all that matters; a value that another program writes is ignored."""

    value: None = None

    @field_validator("value", mode="before")
    @classmethod
    def _passed_over(cls, value: Any) -> None:
        return None


class _Text(Payload):
    value: str


class _Number(Payload):
    value: Count


class SubmissionOrg(_Text):
    key = Key.SUBMISSION_ORG


class SubmissionPlatform(_Text):
    """The system's name in rankings."""

    key = Key.SUBMISSION_PLATFORM


class SubmissionDivision(_Text):
    key = Key.SUBMISSION_DIVISION


class SubmissionBenchmark(_Text):
    key = Key.SUBMISSION_BENCHMARK


class SubmissionStatus(_Text):
    key = Key.SUBMISSION_STATUS


class Explanation(Lenient):
    reason: str = ""


class CacheClear(Payload):
    """Whether caches were cleared before the run."""

    key = Key.CACHE_CLEAR
    value: bool
    metadata: Explanation = Explanation()


class InitStart(_Bare):
    key = Key.INIT_START
    event_type = Type.START


class InitStop(_Bare):
    key = Key.INIT_STOP
    event_type = Type.END


class StagingStart(_Bare):
    key = Key.STAGING_START
    event_type = Type.START


class StagingStop(_Bare):
    key = Key.STAGING_STOP
    event_type = Type.END


class Seed(Payload):
    key = Key.SEED
    value: Annotated[int, Field(ge=0, lt=2**32)]


class TrainSamples(_Number):
    key = Key.TRAIN_SAMPLES


class EvalSamples(_Number):
    key = Key.EVAL_SAMPLES


class GlobalBatchSize(_Number):
    key = Key.GLOBAL_BATCH_SIZE


class GradientAccumulationSteps(_Number):
    key = Key.GRADIENT_ACCUMULATION_STEPS


class OptName(_Text):
    key = Key.OPT_NAME


class OptBaseLearningRate(Payload):
    """The peak for the run's global batch."""

    key = Key.OPT_BASE_LEARNING_RATE
    value: Annotated[float, Field(gt=0)]


class OptLearningRateWarmupEpochs(Payload):
    key = Key.OPT_LEARNING_RATE_WARMUP_EPOCHS
    value: FromZero


class OptWeightDecay(Payload):
    key = Key.OPT_WEIGHT_DECAY
    value: FromZero


class RunStart(_Bare):
    key = Key.RUN_START
    event_type = Type.START


class Outcome(Lenient):
    status: RunStatus


class RunStop(_Bare):
    key = Key.RUN_STOP
    event_type = Type.END
    metadata: Outcome

    @classmethod
    def of(cls, status: RunStatus) -> Self:
        return cls(metadata=Outcome(status=status))


class EpochNumber(Lenient):
    epoch_num: Count


class EpochEvent(Payload):
    """An event of one epoch, whatever its key and its value."""

    metadata: EpochNumber


class _Boundary(_Bare):
    metadata: EpochNumber

    @classmethod
    def of(cls, epoch_num: int) -> Self:
        return cls(metadata=EpochNumber(epoch_num=epoch_num))


class EpochStart(_Boundary):
    key = Key.EPOCH_START
    event_type = Type.START


class EpochStop(_Boundary):
    key = Key.EPOCH_STOP
    event_type = Type.END


class EvalStart(_Boundary):
    key = Key.EVAL_START
    event_type = Type.START


class EvalStop(_Boundary):
    key = Key.EVAL_STOP
    event_type = Type.END


class EvalAccuracy(EpochEvent):
    """The quality, whatever its metric."""

    key = Key.EVAL_ACCURACY
    value: float

    @classmethod
    def of(cls, epoch_num: int, quality: float) -> Self:
        return cls(value=quality, metadata=EpochNumber(epoch_num=epoch_num))


class RunIdentity(Lenient):
    run_id: str
    experiment_digest: str
    code_digest: str
    hpcai500_version: str
    torch_version: str | None = None


class Run(Payload):
    key = Key.RUN
    value: RunIdentity


class DatasetIdentity(Lenient):
    synthetic: bool = False
    digest: str | None = None
    num_train_samples: int | None = None
    num_eval_samples: int | None = None


class Dataset(Payload):
    key = Key.DATASET
    value: DatasetIdentity


class InputPipeline(Frozen):
    """How samples are read, as the workload states it. Further fields are kept."""

    model_config = ConfigDict(extra="allow")

    decoder: Any = None
    layout: Any = None
    loader_processes: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    """Processes per rank, in addition to its own; 0 if a rank reads its own data."""
    loader_threads: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    """Threads per rank, within its own process."""


class Input(Payload):
    key = Key.INPUT
    value: InputPipeline


class SampleFlops(Lenient):
    """FLOPs to train one sample, over the counted batches."""

    mean: FromZero
    standard_deviation: FromZero
    num_batches: int | None = None


class Convention(Lenient):
    convention: str


class FlopsPerSample(Payload):
    key = Key.FLOPS_PER_SAMPLE
    value: SampleFlops
    metadata: Convention


class Structure(Lenient):
    """The structure of a model. A foreign program may leave out what only torch knows."""

    digest: str | None = None
    """Digest of everything that does not depend on the batch."""
    parameters_digest: str | None = None
    """Digest of the parameters' names and shapes."""
    num_parameters: Count
    num_tensors: int | None = None
    layer_parameters: dict[str, int] | None = None
    """Parameters per layer, in the order in which the model registers its layers."""
    layer_flops: dict[str, float]
    """FLOPs of each layer's forward pass for one sample, by name."""
    varying_layers: tuple[str, ...] = ()
    """Layers whose FLOPs depend on what a batch holds."""


class Model(Payload):
    key = Key.MODEL
    value: Structure


class WarmUpTime(Lenient):
    warm_up_sec: FromZero = 0.0


class WarmUp(Payload):
    key = Key.WARM_UP
    value: WarmUpTime


class Epoch(Frozen):
    """The value of `hpcai500.epoch`, and a row of result.json."""

    epoch_num: int
    train_loss: float
    quality: float
    num_samples: int
    """Samples trained, over all ranks."""
    flops: float
    """FLOPs of the epoch, over all ranks."""
    train_sec: float
    eval_sec: float
    data_wait_sec: float | None = None
    """The part of `train_sec` spent waiting for batches, mean over ranks; null in older records."""
    learning_rate: float
    """The rate at the epoch's last step."""
    energy_joules: float | None


class Evaluation(EpochNumber):
    """Figures of an evaluation besides its quality, as the workload names them. Further fields are kept."""

    model_config = ConfigDict(extra="allow")

    num_samples: int | float | None = None
    """Samples that were evaluated."""
    num_records: int | None = None
    """Predictions in evaluation.json."""


class EpochReport(EpochEvent):
    key = Key.EPOCH
    value: Epoch
    metadata: Evaluation

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.value.epoch_num != self.metadata.epoch_num:
            raise ValueError(f"epoch_num is {self.value.epoch_num}, in its metadata {self.metadata.epoch_num}")
        return self


class EnergySources(Lenient):
    sources: tuple[str, ...]
    missing: tuple[str, ...]
    """Why there are no figures, or only some."""


class Energy(Payload):
    key = Key.ENERGY
    value: EnergySources


class MostBytes(Lenient):
    """The most memory that any rank held."""

    host_bytes: int | None = None
    device_bytes: int | None = None
    """Null without a GPU."""


class PeakMemory(Payload):
    key = Key.PEAK_MEMORY
    value: MostBytes


class Position(Lenient):
    epoch: int
    step: int
    """Steps of that epoch that are done."""


class Interrupted(EpochEvent):
    key = Key.INTERRUPTED
    value: Position

    @classmethod
    def of(cls, epoch: int, step: int) -> Self:
        return cls(value=Position(epoch=epoch, step=step), metadata=EpochNumber(epoch_num=epoch))


class Interruption(Frozen):
    """A stop from outside and what it cost; both are part of `total_sec`."""

    epoch: int
    """The epoch in which training continued."""
    step: int
    """Steps of that epoch that were kept."""
    graceful: bool
    """Whether a checkpoint was written after a signal, so that no work was lost."""
    down_sec: float
    """Seconds from the last event before the stop until training continued."""
    lost_sec: float
    """Seconds of work that was repeated."""


class Restart(Interruption):
    model_config = ConfigDict(extra="ignore")

    passed_over: tuple[str, ...] = ()
    """Checkpoints that could not be used, each with the reason."""

    @property
    def interruption(self) -> Interruption:
        """The part that result.json contains."""
        return Interruption(**self.model_dump(include=set(Interruption.model_fields)))


class Resumed(Payload):
    key = Key.RESUMED
    value: Restart


class Origin(Position):
    run: str
    """The folder of the other run."""


class ResumedFrom(Payload):
    key = Key.RESUMED_FROM
    value: Origin


class FailureKind(Lenient):
    status: Literal["aborted", "diverged"] = "aborted"


class RunFailure(Payload):
    """Why a run was aborted."""

    key = Key.FAILURE
    value: str
    metadata: FailureKind = FailureKind()

    @classmethod
    def of(cls, reason: str, status: Literal["aborted", "diverged"]) -> Self:
        return cls(value=reason, metadata=FailureKind(status=status))


class LayerNumber(Lenient):
    layer: Annotated[int, Field(ge=1, le=9)]


class StatedLayer(Payload):
    """One layer of a foreign program, as its log states it."""

    key = Key.LAYER
    value: dict[str, Any]
    metadata: LayerNumber


ONCE = (
    Key.SUBMISSION_ORG, Key.SUBMISSION_PLATFORM, Key.SUBMISSION_DIVISION, Key.SUBMISSION_BENCHMARK,
    Key.SUBMISSION_STATUS, Key.INIT_STOP, Key.RUN_START, Key.RUN_STOP, Key.TRAIN_SAMPLES, Key.EVAL_SAMPLES,
    Key.GLOBAL_BATCH_SIZE, Key.OPT_NAME, Key.RUN, Key.DATASET, Key.MODEL, Key.FLOPS_PER_SAMPLE,
)  # fmt: skip
"""Keys that occur exactly once in a log."""

AT_LEAST_ONCE = (Key.CACHE_CLEAR, Key.INIT_START, Key.SEED, Key.EVAL_ACCURACY)

ONCE_AN_EPOCH = (Key.EPOCH_START, Key.EPOCH_STOP, Key.EVAL_START, Key.EVAL_ACCURACY, Key.EVAL_STOP)
"""Keys that occur exactly once per `hpcai500.epoch`, in pairs around training and evaluation."""
