import sys

import torch

from hpcai500.files import data_dir

sys.path.insert(0, str(data_dir("workloads")))
from extreme_weather.loading import Buffers, ReadAhead

SHAPE = (2, 3, 4, 5)


def test_memory_is_handed_out_again_when_the_last_tensor_lets_it_go():
    buffers = Buffers(pin=False)
    first = buffers.take(SHAPE)
    place, part = first.data_ptr(), first[0].permute(2, 0, 1)
    assert buffers.take(SHAPE).data_ptr() != place
    del first
    assert buffers.take(SHAPE).data_ptr() != place, "a view still holds it"
    del part
    held = [buffers.take(SHAPE) for _ in range(2)]
    assert place in [tensor.data_ptr() for tensor in held]
    assert len({tensor.data_ptr() for tensor in held}) == 2


def test_reading_ahead_goes_round_in_as_many_buffers_as_are_in_flight_and_mixes_up_none():
    buffers = Buffers(pin=False)
    places = set()

    def read(keys):
        batch = buffers.take((len(keys), 1_000))
        batch.copy_(torch.tensor(keys)[:, None].expand(-1, 1_000))
        places.add(batch.data_ptr())
        return batch

    keys = [[number, number + 1] for number in range(50)]
    seen = []
    for batch in ReadAhead(read, num_threads=2).read(keys):
        seen.append([int(row.unique()) for row in batch])
    assert seen == keys
    assert len(places) <= 6  # two being read, three waiting, one in use
