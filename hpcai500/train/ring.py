"""Memory that a loader's processes fill and their parent reads, handed round: new pages cost time."""

import itertools
import weakref
from collections import deque
from collections.abc import Sequence
from typing import Any, Protocol

import torch

_RINGS: "weakref.WeakValueDictionary[int, Ring]" = weakref.WeakValueDictionary()
_NUMBERS = itertools.count()


class FillBatch(Protocol):
    """A reader of batches that can put them into memory that it is given."""

    def fill(self, keys: Sequence[Any], memory: torch.Tensor) -> Any:
        """Put the batch of `keys` at the beginning of `memory` (uint8, flat); what is small of it is returned."""

    def batch(self, memory: torch.Tensor, rest: Any) -> Any:
        """The batch of what `fill` has put into `memory` and of what it returned."""


class Ring:
    """Slots of shared memory: the parent sends a free one with the keys of a batch, and has it back with the batch.

    A slot is free again once no tensor of the batch is held.
    """

    def __init__(self, num_slots: int, slot_bytes: int) -> None:
        shared = torch.UntypedStorage._new_shared(num_slots * slot_bytes)
        self.memory = torch.empty(0, dtype=torch.uint8).set_(shared).view(num_slots, slot_bytes)
        self.number = next(_NUMBERS)
        self._free = deque(range(num_slots))
        self._given: set[int] = set()
        _RINGS[self.number] = self

    def give(self) -> int | None:
        """A free slot; None if there is none."""
        try:
            slot = self._free.popleft()
        except IndexError:
            return None
        self._given.add(slot)
        return slot

    def claim(self, slot: int) -> torch.Tensor:
        """The slot's memory, now that it is filled."""
        self._given.remove(slot)
        view = self.memory[slot].numpy()  # the tensor and its own views hold this object, and nobody else does
        weakref.finalize(view, self._free.append, slot).atexit = False
        return torch.from_numpy(view)

    def reclaim(self) -> None:
        """Take back what was given for batches that will never come."""
        self._free.extend(self._given)
        self._given.clear()

    def __getstate__(self) -> dict[str, Any]:
        """What a loader's process needs."""
        return {"memory": self.memory, "number": self.number}


class RingBatch:
    """A batch on its way from the process that filled a slot."""

    def __init__(self, ring: Ring, slot: int, rest: Any) -> None:
        self._ring, self._slot, self.rest = ring.number, slot, rest
        self._pinned: torch.Tensor | None = None

    @property
    def memory(self) -> torch.Tensor:
        """In the parent, once."""
        return _RINGS[self._ring].claim(self._slot) if self._pinned is None else self._pinned

    def pin_memory(self) -> "RingBatch":
        """What torch's loader calls in a thread of the parent, where batches go to a GPU."""
        self._pinned = self.memory.pin_memory()
        return self
