"""A foreign program's log as a run: any executable that writes the lines of docs/results-format.md can be ranked.

The input may come from anyone: sizes, keys and values are checked against limits before they are used.
"""

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from pydantic import ValidationError

from hpcai500.errors import InputError, nearest
from hpcai500.events.payloads import (
    AT_LEAST_ONCE,
    ONCE,
    Dataset,
    GlobalBatchSize,
    OptBaseLearningRate,
    OptLearningRateWarmupEpochs,
    OptWeightDecay,
    RunStop,
    Seed,
    StatedLayer,
    SubmissionBenchmark,
    SubmissionDivision,
    SubmissionPlatform,
)
from hpcai500.events.reader import Event, event_of, first
from hpcai500.events.typed import Payload, payload, payloads
from hpcai500.events.vocabulary import TOKEN, Key, RunStatus
from hpcai500.exchange.foreign_forms import MOST_TEXT, require_form, require_layer
from hpcai500.files import digest_tree, source_files
from hpcai500.spec.foreign_run import ForeignRun
from hpcai500.spec.levels import Level
from hpcai500.spec.models import parse
from hpcai500.spec.record import SYNTHETIC
from hpcai500.spec.workload import Settings, WorkloadRules, find_workload, load_rules, problem_settings
from hpcai500.text import printable

MOST_LOG_BYTES = 256 * 2**20
MOST_LINE_BYTES = 2**20
MOST_SOURCE_BYTES = 64 * 2**20

_OURS = "hpcai500."
_SEE = "docs/results-format.md lists the lines that a program must write"
_MUST_BE_STATED = (6, 7)
"""Layers that a log must state: they give the number of ranks and the name of the model."""
_HYPER_PARAMETERS = ("opt_", "lars_", "sgd_", "lamb_", "global_batch_size", "gradient_accumulation_steps")
_ONCE_HERE = (
    Key.SEED, Key.OPT_BASE_LEARNING_RATE, Key.OPT_LEARNING_RATE_WARMUP_EPOCHS, Key.OPT_WEIGHT_DECAY, Key.ENERGY,
)  # fmt: skip


def read_log(path: Path) -> list[Event]:
    """All events of a foreign log.

    Raises:
        InputError: if it is not the complete log of one run in the vocabulary of this version.
    """
    events = list(_events(path))
    _require_keys(path, events)
    for earlier, later in pairwise(events):
        if later.time_ms < earlier.time_ms:
            back = (earlier.time_ms - later.time_ms) / 1_000
            raise InputError(
                f"{path}: its clock goes back {back:g} s, from {_short(earlier.key)} to {_short(later.key)}",
                "take all times from one clock, and write lines in order",
            )
    return events


def _events(path: Path) -> Iterator[Event]:
    if not path.is_file():
        raise InputError(f"{path}: no such file", "give the log that the program wrote, or add --run PROGRAM")
    try:
        if (size := path.stat().st_size) > MOST_LOG_BYTES:
            raise InputError(f"{path}: {size:,} bytes, more than {MOST_LOG_BYTES:,}", "log epochs, not steps")
        with path.open("rb") as file:
            number = 0
            while line := file.readline(MOST_LINE_BYTES + 1):
                number += 1
                if len(line) > MOST_LINE_BYTES:
                    raise InputError(f"{path}:{number}: a line of more than {MOST_LINE_BYTES:,} bytes", _SEE)
                text = line.decode(errors="replace")
                position = text.find(TOKEN)
                if position >= 0:
                    yield _event(text[position + len(TOKEN) :], path, number)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error


def _event(text: str, source: Path, line: int) -> Event:
    try:
        event = event_of(json.loads(text, parse_constant=_no_number), source, line)
        # refuses what cannot be written again: 1e999 is infinite, half a surrogate is not a character
        json.dumps([event.key, event.value, event.metadata], allow_nan=False, ensure_ascii=False).encode()
        if not math.isfinite(event.time_ms):
            raise ValueError(event.time_ms)
    except (ValueError, ValidationError, RecursionError) as error:
        raise InputError(
            "not a valid event", f"write it as `{TOKEN} {{...}}`; {_SEE}", at=source, line=line
        ) from error
    if event.key.startswith(_OURS) and event.key not in set(Key):
        known = [key for key in Key if key.startswith(_OURS)]
        raise InputError(
            f"this version does not know the key {_short(event.key)}",
            f"{nearest(event.key[:MOST_TEXT], known)}; or update hpcai500",
            at=source,
            line=line,
        )
    require_form(event)
    return event


def _no_number(text: str) -> NoReturn:
    raise ValueError(text)


def _require_keys(path: Path, events: list[Event]) -> None:
    """Require the keys without which no figure can be computed and no rule checked."""
    if not events:
        raise InputError(f"{path}: no line begins with {TOKEN}", _SEE)
    counts = Counter(event.key for event in events)
    for key in (*ONCE, *AT_LEAST_ONCE):
        if key is not Key.RUN and not counts[key]:
            raise InputError(f"{path}: no {key.value} event", _SEE)
    for key in (*ONCE, *_ONCE_HERE):
        if counts[key] > 1:
            raise InputError(
                f"{path}: {key.value} occurs {counts[key]} times", "a log holds one run: give each its own"
            )
    for key in (Key.RUN, Key.RESUMED, Key.RESUMED_FROM):
        if counts[key]:
            raise InputError(f"{path}: only runs of hpcai500 log {key.value}", "rank the run's own folder")
    stop = payload(events, RunStop)
    if stop and stop.metadata.status is RunStatus.SUCCESS and not counts[Key.EPOCH]:
        raise InputError(f"{path}: no {Key.EPOCH.value} event", _SEE)


def _first(events: list[Event], key: Key) -> Event:
    event = first(events, key)
    assert event is not None  # _require_keys has checked
    return event


def _short(value: Any) -> str:
    return printable(repr(value)[:80])


def stated_layers(events: list[Event], log: Path) -> dict[int, dict[str, Any]]:
    """Records of the layers that the program states, by number. Layer 8 has the official hyper-parameter keys too.

    Raises:
        InputError: if a statement has a wrong form or layer, is incomplete or given twice; or if 6 or 7 is missing.
    """
    stated: dict[int, dict[str, Any]] = {}
    for layer in payloads(events, StatedLayer):
        number = layer.metadata.layer
        if number in stated:
            raise InputError(f"{log}: {Key.LAYER.value} of layer {number} occurs twice", _SEE)
        require_layer(number, layer.value, log)
        stated[number] = layer.value
    for number in _MUST_BE_STATED:
        if number not in stated:
            raise InputError(f"{log}: no {Key.LAYER.value} of layer {number}", _SEE)
    official = {event.key: event.value for event in events if event.key.startswith(_HYPER_PARAMETERS)}
    stated[8] = official | stated.get(8, {})
    return {number: values for number, values in stated.items() if values}


def spec_of(
    events: list[Event],
    log: Path,
    *,
    workload: str,
    problem: str,
    output: str,
    system: str | None = None,
    seed: int | None = None,
    nodes: int = 1,
    source: Path | None = None,
    argv: tuple[str, ...] = (),
) -> ForeignRun:
    """The run that `events` describe; `system` and `seed` must be those of the log if given.

    Raises:
        InputError: if the log contradicts an argument, or lacks part of a run's identity.
    """
    folder = find_workload(workload)
    rules = load_rules(folder)
    stated = stated_layers(events, log)
    logged = _Logged(events, log)
    logged.require(
        {
            SubmissionBenchmark: rules.benchmark,
            SubmissionDivision: Level.FREE.division,
            SubmissionPlatform: system,
            Seed: seed,
        }
    )
    command = command_of(argv, source)
    record = {
        "workload": _workload(folder.name, rules, source, stated[7]["model"]),
        "problem": problem,
        "level": Level.FREE,
        "backend": ForeignRun.BACKEND,
        **_ranks(stated[6]["world_size"], nodes, log),
        "seed": logged.value(Seed),
        "system": logged.value(SubmissionPlatform),
        "output": output,
        "data": SYNTHETIC if logged.value(Dataset).synthetic else "",
        "settings": _settings(logged, stated, problem_settings(rules, problem)),
        "program": {
            "command": command,
            "num_arguments": len(argv) - len(command),
            "stated": {str(n): stated[n] for n in sorted(stated) if 3 <= n <= 8},
        },
    }
    return parse(ForeignRun, record, log)


def _workload(name: str, rules: WorkloadRules, source: Path | None, model: str) -> dict[str, str]:
    return {
        "name": name,
        "folder": str(source) if source else "",
        "code_digest": source_digest(source) if source else "",
        "title": rules.title,
        "benchmark": rules.benchmark,
        "model": model,
    }


def _ranks(world_size: Any, nodes: int, log: Path) -> dict[str, Any]:
    """Fields of a run that give its ranks.

    Raises:
        InputError: if there are fewer ranks than nodes, or more than any machine has.
    """
    if not nodes <= world_size <= 2**31:
        raise InputError(
            f"{log}: {Key.LAYER.value} of layer 6 has world_size {_short(world_size)}, on {nodes} nodes",
            "state the number of ranks, at least one per node",
        )
    procs = math.ceil(world_size / nodes)
    return {"nodes": nodes, "procs_per_node": procs, "num_ranks": 0 if procs * nodes == world_size else world_size}


def _settings(logged: "_Logged", stated: dict[int, dict[str, Any]], reference: Settings) -> dict[str, Any]:
    execution = stated[6]
    return {
        "problem": {**reference.problem.model_dump(mode="json"), **stated.get(9, {})},
        "batch": {"global_batch_size": logged.value(GlobalBatchSize)},
        "optimizer": {
            "learning_rate": logged.value(OptBaseLearningRate),
            "weight_decay": logged.value(OptWeightDecay),
        },
        "schedule": {"warmup_epochs": logged.value(OptLearningRateWarmupEpochs)},
        "execution": {"precision": execution["precision"], "device": execution.get("device", "auto")},
    }


class _Logged(NamedTuple):
    events: list[Event]
    log: Path

    def value(self, kind: type[Payload]) -> Any:
        """The value of the first event of one key.

        Raises:
            InputError: if there is none.
        """
        found = payload(self.events, kind)
        if found is None:
            raise InputError(f"{self.log}: no {kind.key.value} with a value", _SEE)
        return found.value

    def require(self, expected: Mapping[type[Payload], Any]) -> None:
        """Compare logged values with expected ones; None is not compared.

        Raises:
            InputError: for the first value that differs.
        """
        for kind, value in expected.items():
            if value is not None and self.value(kind) != value:
                shown = f"{kind.key.value} is {_short(self.value(kind))}, not {value!r}"
                raise InputError(f"{self.log}: {shown}", "one of the two is wrong")


def command_of(argv: Sequence[str], source: Path | None) -> tuple[str, ...]:
    """Publishable part of a command line: the program, and the first argument that is one of its source files."""
    known = {path.absolute() for path in source_files(source)} if source else set()
    scripts = (word for word in argv[1:] if Path(word).absolute() in known)
    return (*argv[:1], *islice(scripts, 1))


def source_digest(source: Path) -> str:
    """SHA-256, in hex, over all files of a program's source.

    Raises:
        InputError: if there are no files, or they are too large.
    """
    files = list(source_files(source)) if source.is_dir() else []
    size = sum(path.stat().st_size for path in files)
    if not files or size > MOST_SOURCE_BYTES:
        raise InputError(
            f"--source {source}: {len(files)} files, {size:,} bytes",
            f"give a folder with only the program's source, at most {MOST_SOURCE_BYTES:,} bytes",
        )
    return digest_tree(source)


def system_of(
    spec: ForeignRun, events: list[Event], log: Path, captured: Mapping[int, dict[str, Any]], host: str
) -> dict[str, Any]:
    """The run's system.json: layers captured on `host`, and the others as stated by the program."""
    stated = stated_layers(events, log)
    dataset, structure = (_first(events, key).value for key in (Key.DATASET, Key.MODEL))
    measured = {number: captured[number] for number in captured if spec.nodes == 1}
    execution = spec.settings.execution
    known = {"backend": spec.backend, "nodes": spec.nodes, "precision": execution.precision}
    node = {number: stated[number] for number in range(1, 7) if number in stated} | measured
    node[6] = {**node.get(6, {}), **known}
    problem = spec.settings.problem.model_dump(mode="json")
    layers: dict[str, Any] = {
        "7": {**stated.get(7, {}), "code_digest": spec.workload.code_digest, "structure": structure},
        "9": {**problem, "data": dataset},
    }
    if 8 in stated:
        layers["8"] = stated[8]
    return {
        "schema_version": 1,
        "nodes": [{
            "count": spec.nodes,
            "hosts": [host] if measured else [],
            "layers": {str(number): node[number] for number in sorted(node)},
        }],
        "layers": layers,
        "stated": sorted(set(stated) - set(measured)),
    }  # fmt: skip
