import os
from types import SimpleNamespace

import pytest
import torch

from hpcai500.ranks.placement import take_cores


class OneOfMany:
    """Rank `local_rank` on a node whose ranks see `masks`."""

    def __init__(self, local_rank, masks, device="cpu"):
        self.local_rank, self.local_size, self.device = local_rank, len(masks), torch.device(device)
        self._masks = masks

    def gather(self, value):
        node, _, _ = value
        return [(node, rank, frozenset(mask)) for rank, mask in enumerate(self._masks)]

    def broadcast(self, value):
        return value


@pytest.fixture
def machine(monkeypatch):
    """A machine of 16 cores without hyper-threads, whose numbers no real CPU has; what was asked of it."""
    asked = SimpleNamespace(bound=None, threads=16)
    monkeypatch.setattr(os, "sched_setaffinity", lambda _, cpus: setattr(asked, "bound", sorted(cpus)))
    monkeypatch.setattr(torch, "set_num_threads", lambda count: setattr(asked, "threads", count))
    monkeypatch.setattr(torch, "get_num_threads", lambda: asked.threads)

    def take(ranks, env):
        mine = ranks._masks[ranks.local_rank]
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(mine))
        asked.threads = int(env.get("OMP_NUM_THREADS", 16))
        return take_cores(ranks, env), asked

    return take


FIRST = 10**6
ALL = range(FIRST, FIRST + 16)


def test_where_all_ranks_see_all_cores_each_takes_its_own(machine):
    got, asked = machine(OneOfMany(1, [ALL] * 4), {})
    assert asked.bound == [FIRST + core for core in (4, 5, 6, 7)]
    assert got == ("cpu", 4, 4, True)


def test_where_the_launcher_bound_the_ranks_nothing_changes_but_the_threads(machine):
    got, asked = machine(OneOfMany(1, [ALL[:8], ALL[8:]]), {})
    assert asked.bound is None
    assert got == ("cpu", 8, 8, True)


def test_more_ranks_than_cores_get_one_thread_each_and_roam(machine):
    got, asked = machine(OneOfMany(2, [ALL[:2]] * 4), {})
    assert asked.bound is None
    assert got == ("cpu", 2, 1, False)


@pytest.mark.parametrize("env", [{"OMP_NUM_THREADS": "8"}, {"OMP_NUM_THREADS": "4", "OMP_PROC_BIND": "close"}])
def test_threads_that_the_user_binds_or_wants_more_of_are_not_bound_by_us(machine, env):
    got, asked = machine(OneOfMany(1, [ALL] * 4), env)
    assert asked.bound is None
    assert got == ("cpu", 4, int(env["OMP_NUM_THREADS"]), False)


def test_a_rank_with_a_gpu_stays_where_its_launcher_put_it(machine):
    _, asked = machine(OneOfMany(0, [ALL] * 2, device="cuda"), {})
    assert asked.bound is None
