"""What the lines of a foreign log must hold: all that figures and rules read is there, and of its type."""

import json
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, ValidationError, model_validator

from hpcai500.errors import InputError
from hpcai500.events.reader import Event
from hpcai500.events.vocabulary import Key
from hpcai500.score.result import Epoch
from hpcai500.spec.models import Frozen
from hpcai500.spec.workload import Count, Fraction
from hpcai500.words import printable

MOST_TEXT = 200
"""Letters of a name that a table shows, or that a folder can have."""
_LONGEST = 80
"""Letters of a wrong value that one line shows."""


def _is_printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("not printable")
    return text


Text = Annotated[str, Field(min_length=1, max_length=MOST_TEXT), AfterValidator(_is_printable)]


class _Form(Frozen):
    """Of an event's `value` and `metadata`; a program may say more than is read."""

    model_config = ConfigDict(extra="ignore")


class _Text(_Form):
    value: Text


class _Count(_Form):
    value: Count


class _Seed(_Form):
    value: Annotated[int, Field(ge=0, lt=2**32)]


class _AboveZero(_Form):
    value: Annotated[float, Field(gt=0)]


class _FromZero(_Form):
    value: Annotated[float, Field(ge=0)]


class _DatasetValue(_Form):
    digest: Text | None = None
    synthetic: bool = False

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if self.digest is None and not self.synthetic:
            raise ValueError("it names no digest, and is not synthetic")
        return self


class _Dataset(_Form):
    value: _DatasetValue


class _Structure(_Form):
    num_parameters: Count
    layer_flops: Annotated[dict[str, Annotated[float, Field(gt=0)]], Field(min_length=1)]
    """Name of a layer to FLOPs of its forward pass for one sample: what the count a sample is held against."""


class _Model(_Form):
    value: _Structure


class _PerSample(_Form):
    mean: Annotated[float, Field(gt=0)]
    standard_deviation: Annotated[float, Field(ge=0)]


class _Convention(_Form):
    convention: Text


class _FlopsPerSample(_Form):
    value: _PerSample
    metadata: _Convention


class _Sources(_Form):
    sources: tuple[str, ...]
    missing: tuple[str, ...]


class _Energy(_Form):
    value: _Sources


class _EpochNum(_Form):
    epoch_num: Count


class _OfEpoch(_Form):
    metadata: _EpochNum


class _Quality(_OfEpoch):
    value: float


class _Evaluated(_EpochNum):
    num_samples: Count
    num_records: Count | None = None


class _Epoch(_Form):
    value: Epoch
    metadata: _Evaluated

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.value.epoch_num != self.metadata.epoch_num:
            raise ValueError(f"epoch_num is {self.value.epoch_num}, in its metadata {self.metadata.epoch_num}")
        return self


_FORMS: dict[str, type[_Form]] = {
    **dict.fromkeys(
        (
            Key.SUBMISSION_ORG, Key.SUBMISSION_PLATFORM, Key.SUBMISSION_DIVISION, Key.SUBMISSION_BENCHMARK,
            Key.SUBMISSION_STATUS, Key.OPT_NAME,
        ),
        _Text,
    ),
    **dict.fromkeys((Key.TRAIN_SAMPLES, Key.EVAL_SAMPLES, Key.GLOBAL_BATCH_SIZE), _Count),
    **dict.fromkeys((Key.EPOCH_START, Key.EPOCH_STOP, Key.EVAL_START, Key.EVAL_STOP), _OfEpoch),
    Key.SEED: _Seed, Key.OPT_BASE_LEARNING_RATE: _AboveZero,
    Key.OPT_LEARNING_RATE_WARMUP_EPOCHS: _FromZero, Key.OPT_WEIGHT_DECAY: _FromZero,
    Key.DATASET: _Dataset, Key.MODEL: _Model, Key.FLOPS_PER_SAMPLE: _FlopsPerSample, Key.ENERGY: _Energy,
    Key.EVAL_ACCURACY: _Quality, Key.EPOCH: _Epoch,
}  # fmt: skip


class _Gpu(_Form):
    model: Text


class _Hardware(_Form):
    cpu_model: Text
    gpus: tuple[_Gpu, ...] = ()


class _Programming(_Form):
    world_size: Count
    precision: Literal["fp32", "bf16", "fp16"]
    device: Literal["auto", "cpu", "cuda"] = "auto"


class _Implementation(_Form):
    model: Text


class _ProblemDomain(_Form):
    metric: Text
    target_quality: Fraction
    num_epochs: Count


_LAYERS: dict[int, type[_Form]] = {1: _Hardware, 6: _Programming, 7: _Implementation, 9: _ProblemDomain}


def require_form(event: Event, where: str) -> None:
    """Raise InputError, in one line that begins with `where`, if `event` lacks what is read of it later."""
    if form := _FORMS.get(event.key):
        _hold(form, {"value": event.value, "metadata": event.metadata}, f"{where}: {event.key}")


def require_layer(number: int, stated: dict[str, Any], where: str) -> None:
    """Raise InputError if what is `stated` of the layer `number` lacks what is read of it later."""
    if form := _LAYERS.get(number):
        _hold(form, stated, where)


def _hold(form: type[_Form], record: dict[str, Any], what: str) -> None:
    try:
        form.model_validate_json(json.dumps(record))
    except ValidationError as error:
        found = error.errors()
        if missing := [_place(one["loc"]) for one in found if one["type"] == "missing"]:
            raise InputError(f"{what} lacks {', '.join(missing)}", "state it") from error
        first = found[0]
        place = _place(first["loc"])
        text = first["msg"].removeprefix("Value error, ")
        shown = "" if isinstance(first["input"], dict) else f", not {printable(repr(first['input'])[:_LONGEST])}"
        raise InputError(f"{what}: {place}{': ' if place else ''}{text[0].lower()}{text[1:]}{shown}") from error


def _place(location: tuple[int | str, ...]) -> str:
    return printable(".".join(str(part) for part in location)[:_LONGEST])
