"""What a rule is: a number, the sentence that users read, its source, and the function that checks it.

A rule is one function with a decorator, in the module of its group (`rules_1_record.py` … `rules_5_set.py`).
`catalogue.py` collects them.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from hpcai500.errors import HpcAi500Error
from hpcai500.score.record.source import Source
from hpcai500.score.record.system import SystemRecord
from hpcai500.score.rules.evidence import Evidence
from hpcai500.score.rules.kind import Kind

Checked = TypeVar("Checked")

Check = Callable[[Checked], Iterator[str]]
"""One message for each breach; empty if the rule is kept."""


@dataclass(frozen=True, kw_only=True)
class Unreadable:
    """A run whose files could not be read, or are not of the form that a rule expects."""

    source: Source
    error: Exception

    @property
    def reason(self) -> str:
        if isinstance(self.error, HpcAi500Error):
            return str(self.source.named(self.error))
        return f"a record has the wrong form ({type(self.error).__name__}: {self.error})"


@dataclass(frozen=True, kw_only=True)
class CheckedRun:
    evidence: Evidence
    kind: Kind
    framework: SystemRecord | None
    """System of the run whose Layer 5 is the reference; None if no run was named."""


@dataclass(frozen=True, kw_only=True)
class CheckedSet:
    """The runs of one entry."""

    held: Sequence[Evidence]
    """Evidence of the runs that can be read."""
    num_runs: int
    """All runs, readable or not."""
    is_whole: bool
    """False if only some runs of the entry were given."""


@dataclass(frozen=True, kw_only=True)
class Rule(Generic[Checked]):
    number: str
    """Group and place in it, such as `4.2`."""
    sentence: str
    source: str
    """Paper, MLPerf rule, or our own design."""
    check: Check[Checked]


class FileRule(Rule[Unreadable]):
    """A rule whose breach keeps all others from being checked."""


class RunRule(Rule[CheckedRun]):
    pass


class SetRule(Rule[CheckedSet]):
    pass


def file_rule(number: str, sentence: str, *, source: str) -> Callable[[Check[Unreadable]], FileRule]:
    return lambda check: FileRule(number=number, sentence=sentence, source=source, check=check)


def run_rule(number: str, sentence: str, *, source: str) -> Callable[[Check[CheckedRun]], RunRule]:
    return lambda check: RunRule(number=number, sentence=sentence, source=source, check=check)


def set_rule(number: str, sentence: str, *, source: str) -> Callable[[Check[CheckedSet]], SetRule]:
    return lambda check: SetRule(number=number, sentence=sentence, source=source, check=check)
