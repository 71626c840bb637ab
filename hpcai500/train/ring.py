"""Shared memory that a loader's processes fill and their parent reads. It is reused, since new pages cost time."""

import itertools
import weakref
from collections import deque
from collections.abc import Sequence
from typing import Any, Protocol

import torch

_RINGS: "weakref.WeakValueDictionary[int, Ring]" = weakref.WeakValueDictionary()
_NUMBERS = itertools.count()


class FillBatch(Protocol):
    """A reader that can write batches into given memory."""

    def fill(self, keys: Sequence[Any], memory: torch.Tensor) -> Any:
        """Write the batch of `keys` to the beginning of `memory` (uint8, flat). Return its small parts."""

    def batch(self, memory: torch.Tensor, rest: Any) -> Any:
        """The batch from the contents of `memory` and from `rest`, which `fill` returned."""


class Ring:
    """Slots of shared memory. The parent sends a free slot with the keys of a batch, and gets it back with the batch.

    A slot is free again once no tensor of the batch is referenced.
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
        """The memory of a slot that has been filled."""
        self._given.remove(slot)
        view = self.memory[slot].numpy()  # only the tensor and its views reference this object
        weakref.finalize(view, self._free.append, slot).atexit = False
        return torch.from_numpy(view)

    def reclaim(self) -> None:
        """Take back the slots of batches that will never arrive."""
        self._free.extend(self._given)
        self._given.clear()

    def __getstate__(self) -> dict[str, Any]:
        """The part that a loader's process needs."""
        return {"memory": self.memory, "number": self.number}


class RingBatch:
    """A batch in a slot, on its way from the process that filled it."""

    def __init__(self, ring: Ring, slot: int, rest: Any) -> None:
        self._ring, self._slot, self.rest = ring.number, slot, rest
        self._pinned: torch.Tensor | None = None

    @property
    def memory(self) -> torch.Tensor:
        """The slot's memory; in the parent, it may be read only once."""
        return _RINGS[self._ring].claim(self._slot) if self._pinned is None else self._pinned

    def pin_memory(self) -> "RingBatch":
        """Copy the batch to pinned memory. torch's loader calls this in the parent if batches go to a GPU."""
        self._pinned = self.memory.pin_memory()
        return self
