"""Checks of foreign programs: what they state about themselves is disclosed, and Layer 9 is the reference's."""

from collections.abc import Iterator, Sequence
from typing import Any

from hpcai500.events.payloads import ONCE, OptName
from hpcai500.events.vocabulary import Key
from hpcai500.score.rules.evidence import Evidence
from hpcai500.score.rules.kind import Kind
from hpcai500.score.rules.values import CrossCheck, logged_values
from hpcai500.spec.foreign_run import ForeignRun
from hpcai500.spec.layers import Layer
from hpcai500.spec.reference import changes
from hpcai500.text import printable

_LONGEST = 300
"""Characters of a layer that one line shows; system.json has all of it."""


class Foreign(Kind):
    once = tuple(key for key in ONCE if key is not Key.RUN)  # a program cannot know its digests
    not_captured = "neither captured nor stated"
    free_only = "a foreign program, which is compared only at free level"

    def __init__(self, evidence: Evidence, run: ForeignRun) -> None:
        self._evidence = evidence
        self._run = run

    def cross_checks(self) -> Iterator[CrossCheck]:
        stated = self._run.stated(8)
        yield from logged_values(self._evidence.events, OptName, stated.get("opt_name"))
        if self._evidence.system.layers:
            yield "system.json: Layer 8", self._evidence.system.layer(8), stated

    def disclosure_faults(self) -> Iterator[str]:
        if not self._run.workload.code_digest:
            yield "Layer 7 is not disclosed without the program's source: give it by `ingest --source DIR`"
        if Layer.PROBLEM_DOMAIN not in self._evidence.system.stated:
            yield "the program does not state its target, epochs and metric (hpcai500.layer of layer 9)"

    def layers(self) -> dict[int, dict[str, Any]]:
        """All nine layers, as captured or stated."""
        return {number: dict(self._evidence.system.layer(number)) for number in range(1, 10)}

    def changes(self) -> Iterator[str]:
        """Every difference from the reference, and what the program has for Layers 1 to 8."""
        evidence = self._evidence
        if evidence.reference is None:
            return
        for key, (here, there) in changes(self._run.compared_settings(), evidence.reference.settings).items():
            yield f"{key}: {there!r} -> {here!r}"
        source = self._run.workload.code_digest
        yield f"the program: {f'source {source:.16}' if source else 'source not disclosed'}"
        num_parameters = evidence.structure.num_parameters if evidence.structure else None
        yield f"the model: {self._run.workload.model}, {num_parameters!r} parameters"
        for number in range(1, 9):
            layer = Layer(number)
            origin = "stated" if number in evidence.system.stated else "captured"
            values = {key: value for key, value in evidence.system.layer(number).items() if key != "structure"}
            text = ", ".join(f"{key} {value!r}" for key, value in values.items()) or "not disclosed"
            yield f"Layer {number} ({layer.title}, {origin}): {printable(text[:_LONGEST])}"

    def notes(self, held: Sequence[Evidence]) -> Iterator[str]:
        numbers = sorted({number for evidence in held for number in evidence.system.stated})
        yield f"a foreign program: Layers {', '.join(map(str, numbers))} are stated by it, not captured"
        untimed = [evidence.folder.name for evidence in held if evidence.timing is None]
        if untimed:
            yield f"timed only by the program's own clock (rule 2.4): {', '.join(untimed)}"
        fastest = max((e.result.flops.flops_per_rank for e in held if e.result.flops), default=None)
        if fastest is not None:
            yield (
                "FLOPs are counted by the program's own table of its layers, which nothing proves: compare "
                f"{fastest:.4g} FLOPS per rank with the peak of {held[0].result.identity.accelerator}"
            )
        for evidence in held:
            if evidence.timing and evidence.result.time:
                wall = (evidence.timing.ended_ms - evidence.timing.started_ms) / 1_000
                total = evidence.result.time.total_sec
                yield f"{evidence.folder.name}: {total:g} of the {wall:g} s that the program ran"
