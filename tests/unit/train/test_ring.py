import gc

import numpy as np
import pytest
import torch
from torch.utils.data._utils.pin_memory import pin_memory

from hpcai500.errors import DataError
from hpcai500.train.loading import Loader
from hpcai500.train.ring import Ring, RingBatch


class Numbers:
    """Batches of 8 bytes per key, each containing the key."""

    def __call__(self, keys):
        memory = torch.empty(8 * len(keys), dtype=torch.uint8)
        return self.batch(memory, self.fill(keys, memory))

    def fill(self, keys, memory):
        if 99 in keys:
            raise DataError("99 is broken")
        memory[: 8 * len(keys)] = torch.tensor(keys, dtype=torch.uint8).repeat_interleave(8)
        return np.array(keys)

    def batch(self, memory, rest):
        return memory[: 8 * len(rest)].view(-1, 8), torch.from_numpy(rest)


def loader():
    return Loader(Numbers(), num_workers=2, pin_memory=False, batch_bytes=16)


def check(batch, keys):
    values, labels = batch
    assert labels.tolist() == keys
    assert values.tolist() == [[key] * 8 for key in keys]


def test_a_slot_is_given_again_when_its_last_tensor_is_let_go():
    ring = Ring(2, 16)
    first, second = ring.give(), ring.give()
    assert {first, second} == {0, 1}
    assert ring.give() is None
    memory = ring.claim(first)
    part = memory[3:5].view(1, 2)
    del memory
    assert ring.give() is None
    del part
    assert ring.give() == first


def test_slots_that_were_given_and_never_came_back_are_taken_back():
    ring = Ring(3, 16)
    held = ring.claim(ring.give())
    ring.give()
    ring.reclaim()
    assert {ring.give(), ring.give()} == {1, 2}
    assert ring.give() is None, "what is held stays held"
    assert held.numel() == 16


def test_batches_arrive_whole_and_in_order_in_few_places_over_many_rounds():
    reader, places = loader(), set()
    for first in (0, 30):
        batches = [[first + number, first + number + 1] for number in range(0, 30, 2)] + [[first]]
        for keys, batch in zip(batches, reader.read(batches), strict=True):
            check(batch, keys)
            places.add(batch[0].data_ptr())
    assert len(places) <= 7


def test_one_who_keeps_every_batch_gets_batches_of_their_own_when_the_slots_are_gone():
    batches = [[number] for number in range(40)]
    for keys, batch in zip(batches, list(loader().read(batches)), strict=True):
        check(batch, keys)


def test_a_reader_that_is_left_in_the_middle_or_fails_leaves_no_slot_behind():
    reader = loader()
    batches = [[number] for number in range(20)]
    for _ in range(5):
        started = reader.read(batches)
        check(next(started), [0])
        started.close()
        with pytest.raises(DataError, match="99 is broken"):
            list(reader.read([[1], [99], [2]]))
    gc.collect()
    for keys, batch in zip(batches, reader.read(batches), strict=True):
        check(batch, keys)
    del batch
    reader._ring.reclaim()
    assert sorted(reader._ring._free) == list(range(7))


def test_what_goes_to_a_gpu_is_copied_to_page_locked_memory_and_frees_its_slot_at_once(monkeypatch):
    """Pin memory as far as possible without a GPU, which the copy itself needs."""
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor.clone())
    ring = Ring(1, 4)
    ring.memory[ring.give()] = 7
    pinned = pin_memory(RingBatch(ring, 0, "rest"))
    assert ring.give() == 0
    ring.memory[0] = 8
    assert pinned.memory.tolist() == [7] * 4
    assert pinned.rest == "rest"
