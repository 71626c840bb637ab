"""Pass, warn or fail: everything that stages found and comparisons show, worst first."""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from hpcai500.text import counted, natural
from hpcai500.validate.files import Plan, Stage, Trouble
from hpcai500.validate.judge.baseline import compare_baseline, lost_since, read_baseline
from hpcai500.validate.judge.bounds import FEWEST, PeerRule, relative_bound
from hpcai500.validate.judge.deviations import Deviation
from hpcai500.validate.judge.expectations import SiteValues, compare_expected, read_site_values
from hpcai500.validate.judge.findings import KINDS, SEVERITIES, Finding
from hpcai500.validate.judge.merging import findings_of, merge_equal, of_troubles
from hpcai500.validate.judge.peers import Excuse, Lack, column, compare_figures, compare_sameness, missing
from hpcai500.validate.judge.reading import Key, Reading, Series, needed, read
from hpcai500.validate.judge.remedies import remedy
from hpcai500.validate.judge.slow_links import compare_links

Verdict = Literal["pass", "warn", "fail"]


@dataclass(frozen=True, kw_only=True)
class Report:
    plan: Plan
    findings: tuple[Finding, ...]
    """Worst first."""
    series: dict[Key, Series]
    answered: dict[Stage, set[str]]
    rules: tuple[PeerRule, ...]
    """Of the site's file: how far healthy nodes may differ."""
    remarks: tuple[str, ...]
    """What was compared with what, and what could not be."""

    @property
    def verdict(self) -> Verdict:
        return verdict_of(self.findings)

    @property
    def exit_code(self) -> int:
        return 1 if self.verdict == "fail" else 0


def verdict_of(findings: tuple[Finding, ...] | list[Finding]) -> Verdict:
    severities = {finding.severity for finding in findings}
    return "fail" if "fail" in severities else "warn" if "warn" in severities else "pass"


def judge(
    folder: Path, *, baseline: Path | None = None, expected: Path | None = None, any_baseline: bool = False
) -> Report:
    """The verdict on the validation in `folder`, also against a stored baseline and the site's values.

    Raises:
        InputError: for a plan, baseline or file of values that cannot be read, or a baseline of another partition
            unless `any_baseline`; never for what nodes wrote.
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
        more, said = compare_baseline(reading.series, kept, site.peers)
        deviations += more
        remarks += said
        lost = lost_since(reading.series, kept, reading.answered, excused)
    if expected:
        more, said = compare_expected(reading.series, site.expect, str(expected))
        deviations += more
        remarks += said
    findings = merge_equal(findings) + findings_of(deviations, reading.series)
    findings += _silent(reading, of_troubles([_weighed(trouble, reading) for trouble in reading.troubles]))
    among = missing(reading.series, reading.answered, excused)
    told = {(one.stage, name) for one in among for name in one.nodes}
    findings += among + [one for one in lost if not told.intersection((one.stage, name) for name in one.nodes)]
    return Report(
        plan=reading.plan,
        findings=tuple(sorted(findings, key=_order)),
        series=reading.series,
        answered=reading.answered,
        rules=site.peers,
        remarks=tuple(remarks),
    )


def _is_skip(trouble: Trouble) -> bool:
    """Whether it says no more than why one metric was not measured."""
    return trouble.kind == "failed" and trouble.severity == "warn" and bool(trouble.metric)


def _excuses(trouble: Trouble) -> list[Excuse]:
    """What it explains if it is missing: one metric, or all of a node's in the stage."""
    lack = Lack(trouble.device, trouble.metric) if _is_skip(trouble) else None
    return [Excuse(trouble.stage, name, lack) for name in trouble.nodes]


def _weighed(trouble: Trouble, reading: Reading) -> Trouble:
    """What a node skips and most measure is a failure."""
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
    return SEVERITIES.index(finding.severity), KINDS.index(finding.kind), size, names, finding.message


def scaling_efficiency(series: dict[Key, Series]) -> dict[Key, Series]:
    """Samples a second of one node where all train together, over the median where each trains alone."""
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
        f"{FEWEST} values are too few to tell which is slow; --baseline or --expected can"
    ]


def _silent(reading: Reading, found: list[Finding]) -> list[Finding]:
    """`found` of troubles, and nodes that never answered a stage, unless a trouble says why."""
    stages = needed(reading.plan)
    lacks = {
        name: tuple(stage for stage in stages if name not in reading.answered.get(stage, set()))
        for name in reading.plan.nodes
    }
    told: set[str] = set()
    for index, one in enumerate(found):
        if one.kind == "unreachable":
            told.update(one.nodes)
            also = tuple(
                stage for stage in stages if stage != one.stage and any(stage in lacks[name] for name in one.nodes)
            )
            found[index] = one.model_copy(update={"further_stages": also})
    silent: dict[tuple[Stage, ...], list[str]] = defaultdict(list)
    for name, lacking in lacks.items():
        if lacking and name not in told:
            silent[lacking].append(name)
    return found + [
        Finding(
            severity="fail",
            kind="no_answer",
            stage=lacking[0],
            further_stages=lacking[1:],
            nodes=tuple(nodes),
            message=f"no answer in {', '.join(lacking)}"
            + (" (any stage)" if len(lacking) == len(stages) else f" (answered {len(stages) - len(lacking)} others)"),
            remedy=remedy("no_answer", None),
        )
        for lacking, nodes in silent.items()
    ]
