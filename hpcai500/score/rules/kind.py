"""Checks that depend on who trained a run: the base of `Trained` and `Foreign`."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

from hpcai500.events.payloads import ONCE
from hpcai500.events.vocabulary import Key
from hpcai500.score.rules.evidence import Evidence
from hpcai500.score.rules.values import CrossCheck


class Kind(ABC):
    """One run's evidence, by who trained it."""

    once: tuple[Key, ...] = ONCE
    """Keys that occur exactly once in the log."""
    not_captured: str
    """How a message describes layers that system.json lacks."""
    free_only: str = ""
    """Why such a run is compared only at free level; empty if it may be compared at every level."""

    @abstractmethod
    def cross_checks(self) -> Iterator[CrossCheck]:
        """Values of the log and of system.json that follow from run.json, beyond those that all runs share."""

    def identity_faults(self) -> Iterator[str]:
        """Further breaches of rule 1.3."""
        yield from ()

    def override_faults(self) -> Iterator[str]:
        """Breaches of rule 1.6."""
        yield from ()

    def early_read_faults(self) -> Iterator[str]:
        """Breaches of rule 1.7: data read before the clock started."""
        yield from ()

    def disclosure_faults(self) -> Iterator[str]:
        """Further breaches of rule 4.7."""
        yield from ()

    @abstractmethod
    def layers(self) -> dict[int, dict[str, Any]]:
        """All nine layers, for a comparison."""

    @abstractmethod
    def changes(self) -> Iterator[str]:
        """Every difference between the run and its reference, allowed or not."""

    @abstractmethod
    def notes(self, held: Sequence[Evidence]) -> Iterator[str]:
        """What a reader should know of the entry `held`, whose first run this is."""
