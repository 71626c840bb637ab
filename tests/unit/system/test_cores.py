import os
from types import SimpleNamespace

import pytest
import torch

from hpcai500.ranks.placement import take_cores
from hpcai500.system.cores import physical_cores, share_of


@pytest.fixture
def topology(tmp_path):
    """Two packages of two cores, two logical CPUs each, numbered as Linux does: siblings far apart."""
    for cpu in range(8):
        folder = tmp_path / f"cpu{cpu}" / "topology"
        folder.mkdir(parents=True)
        (folder / "physical_package_id").write_text(f"{cpu % 2}\n")
        (folder / "core_id").write_text(f"{cpu % 4 // 2}\n")
    return tmp_path


def test_the_two_logical_cpus_of_a_core_are_one_core_and_packages_stand_together(topology):
    assert physical_cores(range(8), topology) == [(0, 4), (2, 6), (1, 5), (3, 7)]
    assert physical_cores({0, 1, 2}, topology) == [(0,), (2,), (1,)]


def test_without_a_topology_each_cpu_is_a_core(tmp_path):
    assert physical_cores({5, 3}, tmp_path) == [(3,), (5,)]


def test_ranks_get_neighbouring_cores_that_no_other_rank_has(topology):
    cores = physical_cores(range(8), topology)
    assert [share_of(cores, rank, 2) for rank in range(2)] == [[(0, 4), (2, 6)], [(1, 5), (3, 7)]]
    assert [share_of(cores, rank, 3) for rank in range(3)] == [[(0, 4)], [(2, 6)], [(1, 5)]]


def test_ranks_that_outnumber_the_cores_share_them_all():
    assert share_of([(0,), (1,)], 3, 4) == [(0,), (1,)]


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
