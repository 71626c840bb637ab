"""Forms of the lines of a foreign log: values that figures and rules need must exist, with the right type."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from hpcai500.events import payloads as events
from hpcai500.events.reader import Event
from hpcai500.events.typed import Lenient, Payload, checked_record, parsed
from hpcai500.events.vocabulary import Key
from hpcai500.spec.workload import Count, Fraction

MOST_TEXT = 200
"""Characters of a name in a table or of a folder."""


def _is_printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("not printable")
    return text


Text = Annotated[str, Field(min_length=1, max_length=MOST_TEXT), AfterValidator(_is_printable)]


# Payloads with stricter texts and figures than those of our own runs.


class _Org(events.SubmissionOrg):
    value: Text


class _Platform(events.SubmissionPlatform):
    value: Text


class _Division(events.SubmissionDivision):
    value: Text


class _Benchmark(events.SubmissionBenchmark):
    value: Text


class _Status(events.SubmissionStatus):
    value: Text


class _OptName(events.OptName):
    value: Text


class _DatasetIdentity(events.DatasetIdentity):
    digest: Text | None = None

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if self.digest is None and not self.synthetic:
            raise ValueError("it has no digest, and is not synthetic")
        return self


class _Dataset(events.Dataset):
    value: _DatasetIdentity


class _Structure(events.Structure):
    layer_flops: Annotated[dict[str, Annotated[float, Field(gt=0)]], Field(min_length=1)]
    """FLOPs of the layers, which bound those of a sample."""


class _Model(events.Model):
    value: _Structure


class _SampleFlops(events.SampleFlops):
    mean: Annotated[float, Field(gt=0)]


class _Convention(events.Convention):
    convention: Text


class _FlopsPerSample(events.FlopsPerSample):
    value: _SampleFlops
    metadata: _Convention


class _Evaluation(events.Evaluation):
    num_samples: Count
    num_records: Count | None = None


class _EpochReport(events.EpochReport):
    metadata: _Evaluation


_FORMS: dict[str, type[Payload]] = {
    kind.key: kind
    for kind in (
        _Org, _Platform, _Division, _Benchmark, _Status, _OptName, _Dataset, _Model, _FlopsPerSample, _EpochReport,
        events.Seed, events.TrainSamples, events.EvalSamples, events.GlobalBatchSize, events.OptBaseLearningRate,
        events.OptLearningRateWarmupEpochs, events.OptWeightDecay, events.Energy, events.StatedLayer,
        events.EpochStart, events.EpochStop, events.EvalStart, events.EvalAccuracy, events.EvalStop, events.RunStop,
    )
}  # fmt: skip


class _Gpu(Lenient):
    model: Text


class _Hardware(Lenient):
    cpu_model: Text
    gpus: tuple[_Gpu, ...] = ()


class _Programming(Lenient):
    world_size: Count
    precision: Literal["fp32", "bf16", "fp16"]
    device: Literal["auto", "cpu", "cuda"] = "auto"


class _Implementation(Lenient):
    model: Text


class _ProblemDomain(Lenient):
    metric: Text
    target_quality: Fraction
    num_epochs: Count


_LAYERS: dict[int, type[Lenient]] = {1: _Hardware, 6: _Programming, 7: _Implementation, 9: _ProblemDomain}


def require_form(event: Event) -> None:
    """Raise InputError, with the line of the log, if `event` lacks a value that is needed later."""
    if form := _FORMS.get(event.key):
        parsed(event, form)


def require_layer(number: int, stated: dict[str, Any], log: Path) -> None:
    """Raise InputError if the statement of layer `number` lacks a value that is needed later."""
    if form := _LAYERS.get(number):
        checked_record(form, stated, f"{Key.LAYER.value} of layer {number}", at=log)
