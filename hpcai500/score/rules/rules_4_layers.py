"""Rules 4.1 to 4.7: a run is what its level requires."""

import math
from collections.abc import Iterator

from hpcai500.score.rules.evidence import Evidence
from hpcai500.score.rules.rule import CheckedRun, run_rule
from hpcai500.score.rules.structure import OTHER_BACKWARD, SAME, model_differences
from hpcai500.spec.layers import Layer, layer_of
from hpcai500.spec.levels import Level
from hpcai500.spec.reference import Reference, changes, closed_changes


@run_rule("4.1", "The values of Layer 9 are the reference's.", source="HPC AI500")
def problem_is_the_reference(run: CheckedRun) -> Iterator[str]:
    evidence = run.evidence
    if evidence.reference is None:
        if evidence.spec.level is not Level.FREE:
            yield f"no shipped workload has the benchmark {evidence.spec.workload.benchmark!r} to compare with"
        return
    yield from _closed_values(evidence, evidence.reference, of_problem=True)


@run_rule(
    "4.2",
    "The data set has a digest; if the reference's is known, it is the same.",
    source="HPC AI500; ours for the digest",
)
def data_set_is_the_reference(run: CheckedRun) -> Iterator[str]:
    reference, digest = run.evidence.reference, run.evidence.dataset_digest
    if reference is None:
        return
    expected = reference.known.dataset_digest if reference.known else None
    if not digest:
        yield "events.log: the data set has no digest"
    elif expected and digest != expected:
        yield f"the data set's digest is {digest:.16}, the reference's is {expected:.16}"


@run_rule("4.3", "Hardware level: the code of the workload is the reference's.", source="HPC AI500")
def code_is_the_reference(run: CheckedRun) -> Iterator[str]:
    spec, reference = run.evidence.spec, run.evidence.reference
    if reference and spec.level is Level.HARDWARE and spec.workload.code_digest != reference.code_digest:
        yield f"the workload's code is not that of {reference.name}; system level allows it"


@run_rule(
    "4.4",
    "Hardware and system level: the model's parameters, the FLOPs of its layers, and those to train one sample are "
    f"the reference's. (The last within {100 * OTHER_BACKWARD:g} % if the code differs, which may compute one "
    "gradient more.) Free level: the same, if neither the code nor values of model and data were changed.",
    source="HPC AI500 (the same model); ours for the proof",
)
def model_is_the_reference(run: CheckedRun) -> Iterator[str]:
    evidence, reference = run.evidence, run.evidence.reference
    if not (reference and reference.known):
        return
    if evidence.spec.level is Level.FREE and not _has_reference_model(evidence, reference):
        return
    yield from model_differences(evidence.structure, reference.known.model)
    flops, expected = evidence.result.flops, reference.known.flops_per_sample
    slack = SAME if evidence.spec.workload.code_digest == reference.code_digest else OTHER_BACKWARD
    if flops and not math.isclose(flops.per_sample, expected, rel_tol=slack):
        yield f"training a sample takes {flops.per_sample:g} FLOPs, for the reference {expected:g}"


def _has_reference_model(evidence: Evidence, reference: Reference) -> bool:
    """Whether the code, and the values that the model is built from, are the reference's."""
    spec = evidence.spec
    changed = changes(spec.compared_settings(), reference.settings)
    return spec.workload.code_digest == reference.code_digest and not any(
        layer_of(key) is Layer.WORKLOAD_IMPLEMENTATION for key in changed
    )


@run_rule(
    "4.5",
    "Hardware and system level: values of Layers 7 and 8 that the level does not open are the reference's.",
    source="HPC AI500",
)
def fixed_values_are_the_reference(run: CheckedRun) -> Iterator[str]:
    if run.evidence.reference:
        yield from _closed_values(run.evidence, run.evidence.reference, of_problem=False)


def _closed_values(evidence: Evidence, reference: Reference, *, of_problem: bool) -> Iterator[str]:
    """Values that the level fixes and that differ: those of Layer 9, or all others."""
    spec = evidence.spec
    for key, (here, there) in closed_changes(spec.level, spec.compared_settings(), reference).items():
        if (layer_of(key) is Layer.PROBLEM_DOMAIN) is of_problem:
            yield f"{key} is {here!r}, in {reference.name} {there!r}"


@run_rule(
    "4.6",
    "Hardware level: torch and torchvision are the same on all nodes, and those of the run that `--reference` names.",
    source="HPC AI500",
)
def framework_is_the_reference(run: CheckedRun) -> Iterator[str]:
    if run.evidence.spec.level is not Level.HARDWARE or run.evidence.reference is None:
        return
    here = run.evidence.system.frameworks()
    for name, versions in here.items():
        if len(versions) > 1:
            yield f"nodes differ in {name}: {' and '.join(versions)}"
    if run.framework is None:
        return
    there = run.framework.frameworks()
    for name in sorted({*here, *there} - {"horovod"}):
        if here.get(name) != there.get(name):
            own, others = (" and ".join(found.get(name, ())) or "absent" for found in (here, there))
            yield f"{name} is {own}, in the reference {others}; system level allows it"


@run_rule(
    "4.7",
    "All nine layers were captured. Those of a foreign program were captured or stated, and its source is given.",
    source="HPC AI500 (free level: everything is disclosed)",
)
def layers_are_disclosed(run: CheckedRun) -> Iterator[str]:
    if missing := run.evidence.system.missing_layers:
        yield f"system.json: Layers {', '.join(missing)} were {run.kind.not_captured}"
    yield from run.kind.disclosure_faults()
