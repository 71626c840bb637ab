"""A report for a terminal, and as JUnit XML for CI."""

import re
import textwrap
from collections import defaultdict
from xml.etree import ElementTree

from tabulate import tabulate

from hpcai500.report.validation.document import MetricSummary, severities, stages, summary
from hpcai500.text import counted, figure, node_list, share
from hpcai500.validate.files import Stage
from hpcai500.validate.judge.assessment import Assessment
from hpcai500.validate.judge.findings import Finding
from hpcai500.validate.judge.merging import subject_text
from hpcai500.validate.judge.reading import needed

_MOST_FINDINGS = 200
_MOST_DETAILS = 5
_NOT_PLAIN = re.compile("[^\t\n\r\x20-\x7e\xa1-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 forbids (section 2.2) or that move a terminal's cursor."""


def plain(text: str) -> str:
    """`text` with a question mark for each character that no line of a report may contain."""
    return _NOT_PLAIN.sub("?", text)


def report_text(assessment: Assessment, width: int = 100) -> str:
    """Verdict, findings with their remedies, stages and metrics, at most `width` columns wide."""
    plan = assessment.plan
    where = f"{plan.system}, partition {plan.partition}" if plan.partition else plan.system
    head = [
        f"{assessment.verdict.upper()}: {where}, {counted(len(plan.nodes), 'node')}, level {plan.level}, "
        f"{plan.started}",
        severities(assessment),
    ]
    blocks = ["\n".join(_wrap(line, width, "", "") for line in head)]
    blocks += [_finding(finding, width) for finding in assessment.findings[:_MOST_FINDINGS]]
    if len(assessment.findings) > _MOST_FINDINGS:
        blocks.append(f"... and {len(assessment.findings) - _MOST_FINDINGS} more: --format json lists all")
    blocks.append(_stages(assessment))
    blocks.append(_metrics(assessment, width))
    blocks += ["\n".join(_wrap(f"note: {line}", width, "", "      ") for line in assessment.remarks)]
    return "\n\n".join(block for block in blocks if block)


def _wrap(text: str, width: int, first: str, further: str) -> str:
    return textwrap.fill(
        plain(" ".join(text.split())), width, initial_indent=first, subsequent_indent=further, break_on_hyphens=False
    )


def _finding(finding: Finding, width: int) -> str:
    lines = [
        _wrap(
            f"{finding.severity.upper()} {subject_text(finding)}: [{finding.stage}] {finding.message}",
            width,
            "",
            "      ",
        )
    ]
    lines += [_wrap(detail, width, "      - ", "        ") for detail in finding.details[:_MOST_DETAILS]]
    if len(finding.details) > _MOST_DETAILS:
        lines.append(f"      - and {len(finding.details) - _MOST_DETAILS} more")
    return "\n".join([*lines, _wrap(f"-> {finding.remedy}", width, "      ", "         ")])


def _stages(assessment: Assessment) -> str:
    rows = [
        (one.stage, one.verdict, f"{one.num_answered} of {one.num_nodes}" if one.num_nodes else "needs two nodes")
        for one in stages(assessment)
    ]
    return tabulate(rows, headers=("stage", "verdict", "nodes answered"), disable_numparse=True)


def _metrics(assessment: Assessment, width: int) -> str:
    rows = [_row(summary(series)) for series in assessment.series.values() if not series.is_text]
    if not rows:
        return ""
    table = tabulate(
        rows,
        headers=("metric", "of", "median", "spread", "worst", "on"),
        disable_numparse=True,
        maxcolwidths=[max(20, width - 66), 6, 14, 8, 14, 18],
    )
    return plain(table)


def _row(one: MetricSummary) -> tuple[str, ...]:
    assert one.median is not None
    assert one.spread is not None
    spread = share(one.spread, one.median)
    on = f"{' - '.join(one.worst_nodes)} {one.worst_device}".strip()
    size = f" ({one.num_nodes} nodes)" if one.num_nodes > 2 else ""
    worst = figure(one.worst, one.unit)
    return f"{one.stage}/{one.metric}{size}", str(one.num_values), figure(one.median, one.unit), spread, worst, on


def report_junit(assessment: Assessment) -> str:
    """JUnit XML with one suite per stage and one case per node, which fails if the node fails in this stage.

    It follows junit-10.xsd of Jenkins' xUnit plugin; a warning is `system-out` of a case that passed.
    """
    plan = assessment.plan
    root = ElementTree.Element("testsuites", name=plain(f"hpcai500 validate {plan.system}"))
    whole: dict[Stage, list[Finding]] = defaultdict(list)
    of_node: dict[tuple[Stage, str], list[Finding]] = defaultdict(list)
    for finding in assessment.findings:
        for stage in (finding.stage, *finding.further_stages):
            for name in finding.nodes:
                of_node[stage, name].append(finding)
        if not finding.nodes:
            whole[finding.stage].append(finding)
    required = needed(plan)
    extra = [
        stage for stage in dict.fromkeys(finding.stage for finding in assessment.findings) if stage not in required
    ]
    total = [0, 0]
    for stage in (*required, *extra):
        suite = ElementTree.SubElement(root, "testsuite", name=stage, errors="0", skipped="0", time="0")
        suite.set("timestamp", plain(plan.started)[:19])
        suite.set("hostname", plain(plan.system))
        own = {name: of_node[stage, name] for name in plan.nodes}
        cases = {"(all)": whole[stage], **own} if whole[stage] else own
        failures = sum([_case(suite, stage, name, found) for name, found in cases.items()])
        suite.set("tests", str(len(cases)))
        suite.set("failures", str(failures))
        total[0] += len(cases)
        total[1] += failures
    for key, value in (("tests", total[0]), ("failures", total[1]), ("errors", 0)):
        root.set(key, str(value))
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode")


def _case(suite: ElementTree.Element, stage: Stage, name: str, found: list[Finding]) -> bool:
    case = ElementTree.SubElement(suite, "testcase", classname=f"hpcai500.{stage}", name=plain(name), time="0")
    bad = [finding for finding in found if finding.severity == "fail"]
    rest = [finding for finding in found if finding.severity != "fail"]
    if bad:
        failure = ElementTree.SubElement(case, "failure", type=bad[0].kind, message=plain(bad[0].message))
        failure.text = plain("\n".join(_lines(bad)))
    if rest:
        ElementTree.SubElement(case, "system-out").text = plain("\n".join(_lines(rest)))
    return bool(bad)


def _lines(findings: list[Finding]) -> list[str]:
    return [
        f"{finding.severity}: {node_list(finding.nodes)} {finding.device}".rstrip()
        + f": {finding.message}\n-> {finding.remedy}"
        for finding in findings
    ]
