import pytest

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
