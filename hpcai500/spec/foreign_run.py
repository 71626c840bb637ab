"""The record of a foreign program, which trains by itself and whose log `hpcai500 ingest` has read."""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from hpcai500.files import digest, source_files
from hpcai500.spec.levels import Level
from hpcai500.spec.models import Frozen
from hpcai500.spec.record import RunRecord, StatedSettings

_PLACEHOLDERS: dict[str, Any] = {
    "unranked": False,
    "settings": {
        "model": {},
        "data": {},
        "batch": {"micro_batch_size": 1},
        "optimizer": {
            "name": "stated", "momentum": 0.0, "nesterov": False, "decay_norm_and_bias": True,
            "trust_coefficient": 0.001, "second_beta": 0.999,
        },
        "schedule": {"name": "stated", "power": 2.0, "final_fraction": 0.0},
        "execution": {
            "channels_last": False, "compile": False, "fused_optimizer": True, "deterministic": False,
            "gradient_compression": "none", "stop_at_target": False, "num_loader_workers": -1, "num_flop_batches": 1,
            "checkpoint_epochs": 1,
        },
    },
}  # fmt: skip
"""Values in older records for settings that no program states. Never change them: digests cover them."""

_OLDER_PLACES = {"launcher": "foreign", "overrides": {}, "staging": "", "resume_from": ""}
"""Values in older records that no digest covers."""


class Program(Frozen):
    command: tuple[str, ...] = ()
    """The program that `ingest --run` started, and its script if that is a source file; empty without `--run`.

    Other arguments may contain secrets and are not kept."""
    num_arguments: Annotated[int, Field(ge=0)] = 0
    """The number of arguments that were not kept."""
    stated: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Layers 3 to 8 as the log states them, by number."""


class ForeignRun(RunRecord):
    """The `run.json` of a foreign program. It is judged only at free level."""

    BACKEND: ClassVar = "foreign"

    level: Literal[Level.FREE]
    backend: Literal["foreign"]
    settings: StatedSettings
    program: Program

    def source_code(self) -> list[Path]:
        """All files of `workload.folder`."""
        return list(source_files(Path(self.workload.folder)))

    def stated(self, layer: int) -> dict[str, Any]:
        """The program's statement about a layer from 3 to 8; empty if there is none."""
        return self.program.stated.get(str(layer), {})

    @property
    def micro_batch_size(self) -> int:
        """One sample, since no program states it. Predictions then hide the least communication."""
        return 1

    @property
    def optimizer_name(self) -> str:
        return "the program's optimiser"

    @property
    def peak_learning_rate(self) -> float:
        return self.settings.optimizer.learning_rate

    @property
    def gradient_share(self) -> float:
        """1, since no program states it: gradients are assumed not to be compressed."""
        return 1.0

    @property
    def stops_at_target(self) -> bool:
        return False

    @property
    def overrides(self) -> dict[str, Any]:
        """Empty: `--set` does not change a foreign program."""
        return {}

    @property
    def experiment_digest(self) -> str:
        not_digested = {"seed", "system", "output", "data", "hpcai500_version"}
        record = self.model_dump(mode="json", exclude=not_digested)
        del record["workload"]["folder"]
        record["program"] = {"stated": self.program.stated}
        record = _joined(record, _PLACEHOLDERS)
        record["settings"]["optimizer"]["reference_batch_size"] = self.settings.batch.global_batch_size
        return digest(record | {"synthetic": self.is_synthetic})

    def compared_settings(self) -> dict[str, dict[str, Any]]:
        """Layer 9, the only layer that a program shares with the reference."""
        return {"problem": self.settings.problem.model_dump(mode="json")}


def without_placeholders(record: dict[str, Any]) -> dict[str, Any]:
    """`record` in today's form. Older records had the form of runs that this harness trains."""
    return _without(_with_own_batch(record), _PLACEHOLDERS | _OLDER_PLACES) if "launcher" in record else record


def _with_own_batch(record: dict[str, Any]) -> dict[str, Any]:
    """`record` without `optimizer.reference_batch_size`, if that is the run's own global batch."""
    settings = record.get("settings")
    if not isinstance(settings, dict):
        return record
    optimizer, batch = settings.get("optimizer"), settings.get("batch")
    if not (isinstance(optimizer, dict) and isinstance(batch, dict)):
        return record
    if optimizer.get("reference_batch_size") != batch.get("global_batch_size"):
        return record
    kept = {name: value for name, value in optimizer.items() if name != "reference_batch_size"}
    return record | {"settings": settings | {"optimizer": kept}}


def _without(record: dict[str, Any], placeholders: dict[str, Any]) -> dict[str, Any]:
    """`record` without values that equal a placeholder. The model refuses any others."""
    kept = {}
    for name, value in record.items():
        if name not in placeholders:
            kept[name] = value
        elif isinstance(value, dict) and isinstance(placeholders[name], dict) and placeholders[name]:
            kept[name] = _without(value, placeholders[name])
        elif value != placeholders[name]:
            kept[name] = value
    return kept


def _joined(record: dict[str, Any], placeholders: dict[str, Any]) -> dict[str, Any]:
    return record | {
        name: _joined(record[name], value) if name in record else value for name, value in placeholders.items()
    }
