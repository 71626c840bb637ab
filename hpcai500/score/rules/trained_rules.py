"""Checks of runs that this program trained: run.json decides every value of the log and of system.json."""

from collections.abc import Iterator, Sequence
from typing import Any

from hpcai500.events.payloads import Dataset, GradientAccumulationSteps, OptName, Run
from hpcai500.events.typed import payload
from hpcai500.score.rules.evidence import Evidence, settings_of
from hpcai500.score.rules.kind import Kind
from hpcai500.score.rules.structure import model_differences
from hpcai500.score.rules.values import CrossCheck, logged_values, shortened
from hpcai500.spec.reference import changes
from hpcai500.spec.run import RunSpec
from hpcai500.spec.workload import MOST_FLOP_BATCHES

_TABLES_OF_LAYER_8 = ("batch", "optimizer", "schedule")


class Trained(Kind):
    not_captured = "not captured"

    def __init__(self, evidence: Evidence, spec: RunSpec) -> None:
        self._evidence = evidence
        self._spec = spec
        self._settings = spec.settings.model_dump(mode="json")

    def cross_checks(self) -> Iterator[CrossCheck]:
        spec, system, events = self._spec, self._evidence.system, self._evidence.events
        run = payload(events, Run)
        known = {
            "run_id": spec.run_id,
            "experiment_digest": spec.experiment_digest,
            "code_digest": spec.workload.code_digest,
            "hpcai500_version": spec.hpcai500_version,
        }
        for name, expected in known.items():
            yield f"events.log: {name}", getattr(run.value, name) if run else None, expected
        yield from logged_values(events, GradientAccumulationSteps, spec.samples_per_rank // spec.micro_batch_size)
        yield from logged_values(events, OptName, spec.settings.optimizer.name)
        changed = ("compile", "gradient_compression", "deterministic")
        programming: dict[str, Any] = {"nodes": spec.nodes, "launcher": spec.launcher}
        programming |= {name: self._settings["execution"][name] for name in changed}
        for kind in system.nodes:
            held = kind.layers.get("6", {})
            for name, expected in programming.items():
                yield f"system.json: Layer 6 of {', '.join(kind.hosts)[:80]}, {name}", held.get(name), expected
        yield "system.json: the number of nodes", sum(group.count for group in system.nodes), spec.nodes
        dataset = payload(events, Dataset)
        synthetic = dataset.value.synthetic if dataset else None
        yield "events.log: the data set's `synthetic`", synthetic, spec.is_synthetic
        if system.layers:
            seven = {"workload": spec.workload.name, **{name: self._settings[name] for name in ("model", "data")}}
            for name, expected in seven.items():
                yield f"system.json: Layer 7, {name}", system.layer(7).get(name), expected
            eight = {name: self._settings[name] for name in _TABLES_OF_LAYER_8}
            yield "system.json: Layer 8", system.layer(8), eight

    def identity_faults(self) -> Iterator[str]:
        run = payload(self._evidence.events, Run)
        logged = run.value.torch_version if run else None
        if logged not in {kind.layers.get("5", {}).get("torch") for kind in self._evidence.system.kinds}:
            yield f"events.log: torch_version is {shortened(logged)}, but no node of system.json has it"

    def override_faults(self) -> Iterator[str]:
        settings, overrides = self._settings, self._spec.overrides
        for key, value in overrides.items():
            table, _, name = key.partition(".")
            if settings.get(table, {}).get(name) != (list(value) if isinstance(value, tuple) else value):
                here = settings[table].get(name)
                yield f"run.json: {key} is recorded as overridden with {value!r}, but is {here!r}"
        original = settings_of(self._evidence.reference, self._spec)
        for table, values in (original or {}).items():
            for name, value in values.items():
                if settings[table].get(name) != value and f"{table}.{name}" not in overrides:
                    here = settings[table].get(name)
                    yield f"run.json: {table}.{name} is {here!r}, in workload.toml {value!r}, and not in overrides"

    def early_read_faults(self) -> Iterator[str]:
        num_batches = self._spec.settings.execution.num_flop_batches
        if num_batches > MOST_FLOP_BATCHES:
            yield f"{num_batches} batches are read before the clock starts, more than {MOST_FLOP_BATCHES}"

    def layers(self) -> dict[int, dict[str, Any]]:
        """All nine layers; 8 and 9 from run.json."""
        system, settings = self._evidence.system, self._settings
        layers = {number: dict(system.layer(number)) for number in range(1, 10)}
        layers[7] |= {"code_digest": self._spec.workload.code_digest, **{t: settings[t] for t in ("model", "data")}}
        layers[8] = {table: settings[table] for table in _TABLES_OF_LAYER_8}
        layers[9] = {**settings["problem"], "data": system.layer(9).get("data")}
        return layers

    def changes(self) -> Iterator[str]:
        reference, spec, structure = self._evidence.reference, self._spec, self._evidence.structure
        if reference is None:
            return
        for key, (here, there) in changes(self._settings, reference.settings).items():
            yield f"{key}: {there!r} -> {here!r}"
        if spec.workload.code_digest != reference.code_digest:
            yield f"the code of the workload ({spec.workload.name}, {spec.workload.code_digest:.16})"
        if reference.known and structure:
            lines = model_differences(structure, reference.known.model)
            yield from (f"the model: {line}" for line in lines)

    def notes(self, held: Sequence[Evidence]) -> Iterator[str]:
        if settings_of(self._evidence.reference, self._spec) is None:
            yield "the workload is not the shipped one of this version: rule 1.6 was checked only within run.json"
