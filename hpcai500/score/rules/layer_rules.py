"""Rules 4.1 to 4.7: a run is what its level says it is."""

import math
from collections.abc import Iterator

from hpcai500.events.payloads import Structure
from hpcai500.score.record.system import SystemRecord
from hpcai500.score.rules.evidence import Evidence, Finding
from hpcai500.score.rules.kind import Kind
from hpcai500.spec.layers import Layer, layer_of
from hpcai500.spec.levels import Level
from hpcai500.spec.reference import ModelReference, Reference, changes, closed_changes

_SAME, OTHER_BACKWARD = 1e-6, 0.01
"""How far FLOPs may lie from the reference's: where the code is the same; and where another implementation may, say,
compute the gradient of its input too."""
_VARIES = 0.5
"""How far the FLOPs of a layer that depends on the data may lie from the reference's."""


def layer_findings(evidence: Evidence, kind: Kind, framework: SystemRecord | None) -> Iterator[Finding]:
    """`framework` is the system of the run whose Layer 5 is the reference."""
    level, reference = evidence.spec.level, evidence.reference
    if missing := evidence.system.missing_layers:
        yield "4.7", f"system.json: Layers {', '.join(missing)} were {kind.not_captured}"
    yield from kind.layer_findings()
    if reference is None:
        if level is not Level.FREE:
            yield "4.1", f"no shipped workload has the benchmark {evidence.spec.workload.benchmark!r} to compare with"
        return
    yield from _values(evidence, reference)
    yield from _data_set(evidence, reference)
    if level is Level.HARDWARE and evidence.spec.workload.code_digest != reference.code_digest:
        yield "4.3", f"the workload's code is not that of {reference.name}; system level allows it"
    if reference.known and (level is not Level.FREE or _is_unchanged(evidence, reference)):
        yield from (("4.4", line) for line in model_differences(evidence.structure, reference.known.model))
        yield from _training_flops(evidence, reference)
    if level is Level.HARDWARE:
        yield from _framework(evidence.system, framework)


def _is_unchanged(evidence: Evidence, reference: Reference) -> bool:
    """The model is the reference's whatever the level: its code, and the values that it is built from."""
    spec = evidence.spec
    changed = changes(spec.compared_settings(), reference.settings)
    return spec.workload.code_digest == reference.code_digest and not any(
        layer_of(key) is Layer.WORKLOAD_IMPLEMENTATION for key in changed
    )


def _values(evidence: Evidence, reference: Reference) -> Iterator[Finding]:
    for key, (here, there) in closed_changes(
        evidence.spec.level, evidence.spec.compared_settings(), reference
    ).items():
        rule = "4.1" if layer_of(key) is Layer.PROBLEM_DOMAIN else "4.5"
        yield rule, f"{key} is {here!r}, in {reference.name} {there!r}"


def _data_set(evidence: Evidence, reference: Reference) -> Iterator[Finding]:
    digest = evidence.dataset_digest
    expected = reference.known.dataset_digest if reference.known else None
    if not digest:
        yield "4.2", "events.log: no digest of the data set"
    elif expected and digest != expected:
        yield "4.2", f"the data set's digest is {digest:.16}, the reference's {expected:.16}"


def _training_flops(evidence: Evidence, reference: Reference) -> Iterator[Finding]:
    """The same model needs the same FLOPs to train a sample, whoever counts them by the same convention."""
    assert reference.known is not None
    flops, expected = evidence.result.flops, reference.known.flops_per_sample
    slack = _SAME if evidence.spec.workload.code_digest == reference.code_digest else OTHER_BACKWARD
    if flops and not math.isclose(flops.per_sample, expected, rel_tol=slack):
        yield "4.4", f"{flops.per_sample:g} FLOPs are counted to train a sample, by the reference {expected:g}"


def _framework(system: SystemRecord, reference: SystemRecord | None) -> Iterator[Finding]:
    here = system.frameworks()
    yield from (
        ("4.6", f"{name} is {' and '.join(held)}: nodes differ") for name, held in here.items() if len(held) > 1
    )
    there = reference.frameworks() if reference else {}
    for name in sorted({*here, *there} - {"horovod"} if reference else ()):
        if here.get(name) != there.get(name):
            own, others = (" and ".join(found.get(name, ())) or "absent" for found in (here, there))
            yield "4.6", f"{name} is {own}, in the reference {others}; system level allows it"


def model_differences(
    structure: Structure | ModelReference | None, reference: ModelReference, whose: str = "the reference's"
) -> Iterator[str]:
    """How a model's structure, as logged, differs from the reference's, or from `whose` it is."""
    if structure is None:
        yield "events.log: no structure of the model"
        return
    if structure.parameters_digest != reference.parameters_digest:
        yield (
            f"names and shapes of the model's {structure.num_parameters:,} parameters differ from "
            f"{whose} {reference.num_parameters:,}"
        )
    elif structure.num_parameters != reference.num_parameters:
        yield f"{structure.num_parameters:,} parameters are logged, not {reference.num_parameters:,}"
    here, there, varying = structure.layer_flops, reference.layer_flops, reference.varying_layers
    wrong = [
        name
        for name in sorted({*here, *there})
        if not math.isclose(here.get(name, 0.0), there.get(name, 0.0), rel_tol=_VARIES if name in varying else _SAME)
    ]
    if wrong:
        first = wrong[0]
        yield (
            f"{len(wrong)} layers need other FLOPs than {whose}, first {first!r}: "
            f"{here.get(first, 0):g} a sample, not {there.get(first, 0):g}"
        )
