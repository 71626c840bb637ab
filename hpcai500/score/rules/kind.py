"""What rules say of one kind of run only: the base of `Trained` and `Foreign`."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

from hpcai500.events.payloads import ONCE
from hpcai500.events.vocabulary import Key
from hpcai500.score.rules.evidence import Evidence, Finding

CrossCheck = tuple[str, Any, Any]
"""Name of a value that two files hold, what stands there, and what run.json makes it."""


class Kind(ABC):
    """One run's evidence, by who trained it."""

    once: tuple[Key, ...] = ONCE
    """Keys that stand exactly once in the log."""
    not_captured: str
    """What is said of layers that system.json lacks."""
    free_only: str = ""
    """Why such a run is never compared at a stricter level than free; empty if it may be."""

    @abstractmethod
    def cross_checks(self) -> Iterator[CrossCheck]:
        """Values of the log and of system.json that follow from run.json, beside those that all runs share."""

    def record_findings(self) -> Iterator[Finding]:
        yield from ()

    def layer_findings(self) -> Iterator[Finding]:
        yield from ()

    @abstractmethod
    def layers(self) -> dict[int, dict[str, Any]]:
        """All nine layers, for a comparison."""

    @abstractmethod
    def changes(self) -> Iterator[str]:
        """Everything in which the run differs from its reference, allowed or not."""

    @abstractmethod
    def notes(self, held: Sequence[Evidence]) -> Iterator[str]:
        """What a reader should know of the entry `held`, whose first run this is."""
