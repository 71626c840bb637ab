"""Site checks and job scripts against a real Slurm."""

import json
import shlex
import shutil
import tempfile
from collections import Counter
from pathlib import Path

import pytest

from hpcai500.launch.launcher import RankStart
from hpcai500.launch.layout import Layout
from hpcai500.launch.registry import find_launcher
from hpcai500.launch.slurm.header import log_pattern
from hpcai500.launch.slurm.script import JobPlan, job_template, render_job
from hpcai500.spec.site import load_site, site_folders, with_site_overrides

PROFILE = site_folders()[1] / "testbed.toml"
AWKWARD = """it's 100% "a" $HOME `id`;&"""


@pytest.fixture
def place(cluster, tmp_path_factory):
    """A folder that the nodes share, with a name that needs quoting."""
    folder = cluster.shared / tmp_path_factory.mktemp("site").name / AWKWARD
    folder.mkdir(parents=True)
    yield folder
    shutil.rmtree(folder.parent)


@pytest.fixture
def check(desk):
    """The result of `hpcai500 site check testbed`: exit code, and messages by level and subject."""

    def run(*options, env=None):
        done = desk.hpcai500("site", "check", PROFILE, "--json", *options, check=False, env=env)
        assert done.stderr == ""
        found = json.loads(done.stdout)["findings"]
        return done.returncode, {f"{finding['level']} {finding['subject']}": finding["message"] for finding in found}

    return run


def test_the_testbed_s_own_profile_fits_it(check):
    code, found = check()
    assert code == 0
    assert {key.split()[0] for key in found} == {"ok"}
    assert found["ok paths"] == "2 seen from a node: results, python"
    assert found["ok nodes"] == "2 of the 4 in debug that are up, 4 in all"


@pytest.mark.parametrize(
    ("option", "key", "message"),
    [
        ("partition=debgu", "error partition", "did you mean 'debug'"),
        ("nodes=5", "error nodes", "asks for 5 nodes; debug has 4"),
        ("time=02:00:00", "error time", "above the 01:00:00 that debug allows"),
        ("gpus_per_node=3", "error GPUs", "in debug, 2 at once have 2 each"),
        ("cpus_per_task=5", "error sbatch", "Requested node configuration is not available"),
        ("memory=9G", "error memory", "asks for 9,216 MB of memory per node"),
        ("mpi=pmix_v3", "error MPI", "pmix_v4"),
        ("constraint=absent", "error sbatch", "Invalid feature specification"),
        ("reservation=absent", "error sbatch", "reservation"),
    ],
)
def test_what_the_testbed_cannot_give_is_said(check, option, key, message):
    code, found = check("--no-job", "--slurm", option)
    assert code == 1
    assert message in found[key]


@pytest.fixture
def own_tmp():
    """A folder below /tmp, which differs on every node."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        yield Path(name)


def test_a_node_is_asked_for_paths_and_this_machine_s_tmp_is_not_its_own(check, own_tmp):
    own = own_tmp / "python"
    own.write_text("#!/bin/sh\n")
    own.chmod(0o755)
    code, found = check("--slurm", f"python={own}", "--slurm", f"results={own_tmp}", "--slurm", "staging=/tmp/a/b")
    assert code == 1
    assert found["error python"] == f"no program {own} on the nodes: set software.python"
    assert found["error results"] == f"{own_tmp} is not a file system that nodes share"
    assert "error staging" not in found


def test_accounting_that_is_off_is_a_warning(cluster, check):
    code, found = check("--no-job", env=cluster.env_without_accounting)
    assert code == 0
    assert "accounting storage is disabled" in found["warning accounting"]


def srun_tokens(site, **layout):
    step = RankStart(Layout(launcher="srun", **layout), site, in_allocation=True)
    return find_launcher("srun").tokens(step)


STAND_IN = """\
#!/bin/bash
# In the interpreter's place: writes down its rank and its words, and is preempted when it first starts. As a rank
# does, it is deaf to the signal by which srun ends a step whose first task has left.
trap "" TERM
folder=$(dirname -- "$3")
echo "$SLURM_PROCID $SLURM_JOB_NUM_NODES $PYTHONPATH $OMP_NUM_THREADS $GLOO_SOCKET_IFNAME $2" >>"$folder/seen"
[ "${SLURM_RESTART_COUNT:-0}" -gt 0 ] || exit 75
"""


def test_a_script_s_array_runs_seeds_beyond_the_index_and_goes_on_after_preemption(cluster, place):
    python = place / "python"
    python.write_text(STAND_IN)
    python.chmod(0o755)
    job = JobPlan(
        site=load_site(str(PROFILE)), job_name=AWKWARD, nodes=2, procs_per_node=1, num_ranks=0, seeds=(100, 101),
        run_prefix=f"{place}/seed", python=str(python), log=log_pattern(str(place), "%A_%a.log"),
        snapshot=str(place), array_offset=100,
    )  # fmt: skip
    script = place / "job.sbatch"
    script.write_text(render_job(job, job_template()))
    job_id = cluster.run("sbatch", "--parsable", script).stdout.strip()
    for index in (0, 1):
        cluster.wait_for(f"{job_id}_{index}", "COMPLETED", timeout=120)
        run = place / f"seed{100 + index}"
        starts = [line.split() for line in (run / "logs" / "jobs").read_text().splitlines()]
        assert [(start[0], start[2]) for start in starts] == [(f"{job_id}_{index}", "0"), (f"{job_id}_{index}", "1")]
        seen = (run / "seen").read_text().splitlines()
        said = f"2 {place} 1 eth0 hpcai500.train.worker"
        assert Counter(seen) == {f"0 {said}": 2, f"1 {said}": 2}
        assert (place / f"{job_id}_{index}.log").is_file()


def test_uneven_ranks_fill_the_first_node(cluster):
    site = with_site_overrides(load_site(str(PROFILE)), {"time": "00:05:00"})
    step = shlex.join((*srun_tokens(site, nodes=2, procs_per_node=2, num_ranks=3), "bash", "-c", "hostname"))
    out = cluster.run("salloc", "--quiet", "--nodes=2", "--ntasks-per-node=2", "bash", "-c", step).stdout
    assert sorted(Counter(out.split()).values()) == [1, 2]


def test_the_cores_of_a_rank_reach_its_step(cluster):
    site = with_site_overrides(load_site(str(PROFILE)), {"cpus_per_task": 2})
    step = shlex.join((*srun_tokens(site, nodes=1, procs_per_node=2), "bash", "-c", "echo $SLURM_CPUS_PER_TASK"))
    out = cluster.run(
        "salloc", "--quiet", "--nodes=1", "--ntasks-per-node=2", "--cpus-per-task=2", "bash", "-c", step
    )
    assert out.stdout.split() == ["2", "2"]
