"""The judgement of a whole validation: its findings, and the measurements that they follow from."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from hpcai500.validate.files import Plan, Stage
from hpcai500.validate.judge.bounds import PeerRule
from hpcai500.validate.judge.findings import Finding
from hpcai500.validate.judge.reading import Key, Series

Verdict = Literal["pass", "warn", "fail"]


@dataclass(frozen=True, kw_only=True)
class Assessment:
    plan: Plan
    findings: tuple[Finding, ...]
    """Findings, worst first."""
    series: dict[Key, Series]
    answered: dict[Stage, set[str]]
    rules: tuple[PeerRule, ...]
    """How far healthy nodes may differ, from the site's file."""
    remarks: tuple[str, ...]
    """What was compared with what, and what could not be compared."""

    @property
    def verdict(self) -> Verdict:
        return verdict_of(self.findings)

    @property
    def exit_code(self) -> int:
        return 1 if self.verdict == "fail" else 0


def verdict_of(findings: Iterable[Finding]) -> Verdict:
    severities = {finding.severity for finding in findings}
    return "fail" if "fail" in severities else "warn" if "warn" in severities else "pass"
