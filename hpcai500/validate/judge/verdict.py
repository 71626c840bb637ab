"""Judgement of a validation: all findings from troubles and comparisons, worst first."""

from collections import defaultdict
from pathlib import Path

import numpy as np

from hpcai500.text import counted, natural
from hpcai500.validate.files import Stage, Trouble
from hpcai500.validate.judge.assessment import Assessment
from hpcai500.validate.judge.baseline import compare_baseline, lost_since, read_baseline
from hpcai500.validate.judge.bounds import FEWEST, relative_bound
from hpcai500.validate.judge.deviations import Deviation
from hpcai500.validate.judge.expectations import SiteValues, compare_expected, read_site_values
from hpcai500.validate.judge.findings import SEVERITIES, Finding, Kind
from hpcai500.validate.judge.merging import findings_of, findings_of_troubles, merge_equal
from hpcai500.validate.judge.peers import Excuse, Lack, column, compare_figures, compare_sameness, missing
from hpcai500.validate.judge.reading import Key, Reading, Series, needed, read
from hpcai500.validate.judge.slow_links import compare_links


def judge(
    folder: Path, *, baseline: Path | None = None, expected: Path | None = None, any_baseline: bool = False
) -> Assessment:
    """Judge the validation in `folder`, and compare it with a stored baseline and the site's values if given.

    Raises:
        InputError: if the plan, the baseline or the file of values cannot be read; if the baseline is of another
            partition without `any_baseline`. What nodes wrote never raises.
    """
    reading = read(folder)
    reading.series.update(scaling_efficiency(reading.series))
    site = read_site_values(expected) if expected else SiteValues()
    deviations, findings = _among_peers(reading, site)
    remarks = _remarks(reading, site)
    excused = {excuse for trouble in reading.troubles for excuse in _excuses(trouble)}
    lost: list[Finding] = []
    if baseline:
        kept = read_baseline(baseline, reading.plan, any_baseline=any_baseline)
        more, noted = compare_baseline(reading.series, kept, site.peers)
        deviations += more
        remarks += noted
        lost = lost_since(reading.series, kept, reading.answered, excused)
    if expected:
        more, noted = compare_expected(reading.series, site.expect, str(expected))
        deviations += more
        remarks += noted
    findings = merge_equal(findings) + findings_of(deviations, reading.series)
    findings += _silent(reading, findings_of_troubles([_weighed(trouble, reading) for trouble in reading.troubles]))
    among = missing(reading.series, reading.answered, excused)
    reported = {(one.stage, name) for one in among for name in one.nodes}
    findings += among + [one for one in lost if not reported.intersection((one.stage, name) for name in one.nodes)]
    return Assessment(
        plan=reading.plan,
        findings=tuple(sorted(findings, key=_order)),
        series=reading.series,
        answered=reading.answered,
        rules=site.peers,
        remarks=tuple(remarks),
    )


def _is_skip(trouble: Trouble) -> bool:
    """Whether it only explains why one metric was not measured."""
    return trouble.kind == "failed" and trouble.severity == "warn" and bool(trouble.metric)


def _excuses(trouble: Trouble) -> list[Excuse]:
    """Missing metrics that it explains: one metric, or all of a node in the stage."""
    lack = Lack(trouble.device, trouble.metric) if _is_skip(trouble) else None
    return [Excuse(trouble.stage, name, lack) for name in trouble.nodes]


def _weighed(trouble: Trouble, reading: Reading) -> Trouble:
    """The trouble as a failure if it skips a metric that most nodes measure; otherwise unchanged."""
    series = reading.series.get(Key(trouble.stage, trouble.metric, 1))
    if series is None or not _is_skip(trouble):
        return trouble
    holders = {subject.nodes for subject in series.values if subject.device == trouble.device}
    is_usual = 2 * len(holders) > len(reading.answered.get(trouble.stage, set()))
    return trouble.model_copy(update={"severity": "fail"}) if is_usual else trouble


def _order(finding: Finding) -> tuple[int, int, float, list[tuple[tuple[int, str], ...]], str]:
    size = 0.0
    if isinstance(finding.value, float) and isinstance(finding.reference, float) and finding.reference:
        size = -abs(finding.value / finding.reference - 1)
    names = [natural(name) for name in finding.nodes[:2]]
    return SEVERITIES.index(finding.severity), list(Kind).index(finding.kind), size, names, finding.message


def scaling_efficiency(series: dict[Key, Series]) -> dict[Key, Series]:
    """Series of samples per second per node in training together, over the median of single nodes."""
    alone = series.get(Key("training", "alone_samples_per_sec", 1))
    centre = float(np.median(column(alone).values)) if alone and not alone.is_text else 0.0
    found = {}
    for key, together in series.items():
        if key[:2] == ("training", "together_samples_per_sec") and not together.is_text and centre > 0:
            subjects, values = column(together)
            own = Key("training", "scaling_efficiency", key.num_nodes)
            found[own] = Series(key=own, unit="", better="higher", is_text=False)
            found[own].values.update(
                (subject, [float(value) / centre]) for subject, value in zip(subjects, values, strict=True)
            )
    return found


def _among_peers(reading: Reading, site: SiteValues) -> tuple[list[Deviation], list[Finding]]:
    deviations: list[Deviation] = []
    findings: list[Finding] = []
    for key, series in reading.series.items():
        if series.better == "same":
            findings += compare_sameness(series)
        elif series.is_text:
            continue
        elif key.stage == "links" and key.num_nodes == 2:
            deviations += compare_links(series, site.peers)
        else:
            found, spread = compare_figures(series, site.peers)
            deviations += found
            findings += [spread] if spread else []
    return deviations, findings


def _remarks(reading: Reading, site: SiteValues) -> list[str]:
    few = [
        key
        for key, series in reading.series.items()
        if series.better != "same" and len(series.values) < FEWEST and relative_bound(key, site.peers) is not None
    ]
    if not few:
        return []
    stages = sorted({key.stage for key in few})
    return [
        f"peers: not compared in {counted(len(few), 'metric')} of {', '.join(stages)}: fewer than "
        f"{FEWEST} values are too few to find a slow one; use --baseline or --expected"
    ]


def _silent(reading: Reading, found: list[Finding]) -> list[Finding]:
    """Findings of troubles, and of nodes that did not answer a stage, unless a trouble explains it."""
    stages = needed(reading.plan)
    lacks = {
        name: tuple(stage for stage in stages if name not in reading.answered.get(stage, set()))
        for name in reading.plan.nodes
    }
    explained: set[str] = set()
    for index, one in enumerate(found):
        if one.kind is Kind.UNREACHABLE:
            explained.update(one.nodes)
            also = tuple(
                stage for stage in stages if stage != one.stage and any(stage in lacks[name] for name in one.nodes)
            )
            found[index] = one.model_copy(update={"further_stages": also})
    silent: dict[tuple[Stage, ...], list[str]] = defaultdict(list)
    for name, lacking in lacks.items():
        if lacking and name not in explained:
            silent[lacking].append(name)
    return found + [
        Finding(
            severity="fail",
            kind=Kind.NO_ANSWER,
            stage=lacking[0],
            further_stages=lacking[1:],
            nodes=tuple(nodes),
            message=f"no answer in {', '.join(lacking)}"
            + (" (any stage)" if len(lacking) == len(stages) else f" (answered {len(stages) - len(lacking)} others)"),
            remedy=Kind.NO_ANSWER.remedy,
        )
        for lacking, nodes in silent.items()
    ]
