import re
import tomllib

import pytest

from hpcai500.errors import SpecError
from hpcai500.spec.run import parse_overrides
from hpcai500.spec.site import (
    Site,
    SlurmRequest,
    find_sites,
    load_site,
    site_folders,
    time_limit_sec,
    with_site_overrides,
)


@pytest.fixture
def own_sites(tmp_path, monkeypatch):
    folder = tmp_path / "config" / "hpcai500" / "sites"
    folder.mkdir(parents=True)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return folder


@pytest.mark.parametrize("path", sorted(site_folders()[1].glob("*.toml")), ids=lambda path: path.stem)
def test_every_key_of_a_shipped_profile_is_explained_on_its_line(path):
    assert load_site(str(path)).system
    for line in path.read_text().splitlines():
        if "=" in line.partition("#")[0]:
            assert len(line.partition("#")[2]) >= 8, line


def test_the_cpu_example_shows_every_key_but_those_of_gpus_and_containers():
    shown = tomllib.loads((site_folders()[1] / "cpu.toml").read_text())
    gpus = {"gpus_per_node", "gpu_type", "gpu_request"}
    everything = Site().model_dump()
    assert set(shown) == set(everything) - {"container"}
    for table in set(shown) - {"system"}:
        assert set(shown[table]) == set(everything[table]) - gpus


def test_a_user_s_own_profile_wins_and_takes_its_file_s_name(own_sites):
    (own_sites / "cpu.toml").write_text('[slurm]\npartition = "mine"\n')
    assert load_site("cpu").slurm.partition == "mine"
    assert load_site("cpu").system == "cpu"
    assert load_site(str(own_sites / "cpu.toml")) == load_site("cpu")
    assert {"cpu", "gpu8", "testbed"} <= set(find_sites())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[slurm]\npartitoin = "x"', r"a\.toml: unknown key 'slurm.partitoin'; did you mean 'partition'"),
        ('[slum]\npartition = "x"', r"unknown key 'slum'; did you mean 'slurm'"),
        ("[slurm]\nnodes = 0", r"slurm\.nodes: .*greater than or equal to 1, not 0"),
        ('[slurm]\nnodes = "2"', r"slurm\.nodes: .*valid integer"),
        ('[slurm]\ntime = "soon"', r"slurm\.time: write a time limit as HH:MM:SS"),
        ('[slurm]\ntime = "1"\n', r"slurm\.time \(1\) must exceed preemption\.grace_sec \(120\)"),
        ('[slurm]\nmpi = "openmpi"', r"slurm\.mpi"),
        ('[container]\nengine = "pyxis"', r"engine and image go together"),
        ('[software]\nprologue = ["a\\nb"]', r"software\.prologue"),
        ('[places]\nresults = "here"', r"'here' must be an absolute path"),
        ('system = "two words"', r"system"),
        ("not toml", r"a\.toml: .*; fix the file"),
    ],
)
def test_a_wrong_profile_is_named_with_its_file_and_key(tmp_path, text, message):
    path = tmp_path / "a.toml"
    path.write_text(text)
    with pytest.raises(SpecError, match=message):
        load_site(str(path))


def test_an_unknown_site_lists_the_choices(own_sites):
    with pytest.raises(
        SpecError, match=r"unknown site 'gpu9'; did you mean 'gpu8'\? \(have: apptainer, .*or give a path"
    ):
        load_site("gpu9")
    with pytest.raises(SpecError, match=r"absent\.toml: .*No such file"):
        load_site("absent.toml")


def test_an_override_needs_no_table_and_is_checked_like_the_file():
    overrides = parse_overrides(["partition=gpu", "slurm.nodes=4", "time=01:30:00", "account=1234", "memory=0"])
    site = with_site_overrides(Site(), {**overrides, "system": "box", "modules": ["gcc"], "python": "/p"})
    expected = SlurmRequest(partition="gpu", nodes=4, time="01:30:00", account="1234", memory="0")
    assert site.slurm == expected
    assert (site.system, site.software.modules, site.software.python) == ("box", ("gcc",), "/p")
    with pytest.raises(SpecError, match=r"--slurm partitoin: unknown key; did you mean 'partition'"):
        with_site_overrides(Site(), {"partitoin": "gpu"})
    with pytest.raises(SpecError, match=r"--slurm: slurm\.mpi"):
        with_site_overrides(Site(), {"mpi": "openmpi"})


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30", 1_800), ("30:10", 1_810), ("1:02:03", 3_723), ("1-2", 93_600), ("1-2:3", 93_780), ("1-2:3:4", 93_784)],
)
def test_time_limits_are_slurm_s_six_forms(text, seconds):
    assert time_limit_sec(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "00:00", "x", "1:2:3:4", "1-", "-1", "1-2:3:4:5", "infinite"])
def test_what_is_no_time_limit_is_refused(text):
    with pytest.raises(ValueError, match=re.compile("time limit")):
        time_limit_sec(text)


def test_data_lies_in_a_problem_s_own_folder_or_in_the_workload_s():
    places = {"places.data": {"a": "/a", "b": {"full": "/b1979"}}}
    site = with_site_overrides(Site(), {"data": places["places.data"]})
    found = [site.data_folder(*which) for which in (("a", "mini"), ("b", "full"), ("b", "mini"), ("c", "full"))]
    assert found == ["/a/mini", "/b1979", "", ""]


def test_ranks_a_node_are_one_a_gpu_unless_the_profile_says():
    assert [SlurmRequest(**given).procs_per_node for given in ({}, {"gpus_per_node": 8}, {"tasks_per_node": 3})] == [
        1,
        8,
        3,
    ]
