"""The testbed behaves like the clusters that the launcher must work on."""

import sys
import time
from pathlib import Path

import pytest

TESTBED = Path(__file__).parents[2] / "slurm/testbed/testbed.py"
MEMORY_CGROUP = Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")


@pytest.fixture(scope="module")
def sbatch(cluster):
    """Submit a job that runs one shell line. Return its number; it is cancelled when these tests end."""
    job_ids = []

    def submit(line, *options) -> str:
        output = cluster.shared / "testbed-%A_%a.out"
        done = cluster.run("sbatch", "--parsable", f"--output={output}", *options, f"--wrap={line}")
        job_ids.append(done.stdout.strip())
        return job_ids[-1]

    yield submit
    cluster.run("scancel", *job_ids)


@pytest.fixture(scope="module", autouse=True)
def job_past_its_limit(cluster, sbatch):
    """A job past its limit, started before the other tests, since Slurm checks limits only twice per minute."""
    job_id = sbatch("sleep 300", "--nodelist=node4")
    cluster.wait_for(job_id, "RUNNING")
    cluster.run("scontrol", "update", f"jobid={job_id}", "endtime=now+1")
    return job_id


def test_each_node_has_a_name_an_address_and_a_tmp_of_its_own(cluster):
    line = "f=/tmp/testbed-$(hostname); touch $f; sleep 1; echo $(hostname) $(hostname -I) /tmp/testbed-*; rm $f"
    lines = cluster.run("srun", "--nodes=4", "sh", "-c", line).stdout.splitlines()
    assert sorted(lines) == [f"node{i} 10.50.0.{10 + i} /tmp/testbed-node{i}" for i in range(1, 5)]


def test_the_nodes_reach_each_other_by_name(cluster):
    line = 'import socket; print(*(socket.gethostbyname(f"node{i}") for i in range(1, 5)))'
    out = cluster.run("srun", "--nodes=2", sys.executable, "-c", line).stdout
    assert out.splitlines() == ["10.50.0.11 10.50.0.12 10.50.0.13 10.50.0.14"] * 2


@pytest.mark.parametrize(("count", "devices"), [(1, ["0"]), (2, ["0,1"])])
def test_gpus_are_handed_out(cluster, count, devices):
    job = ["srun", "--nodes=2", f"--gpus-per-node={count}", "--exclusive", "sh", "-c", "echo $CUDA_VISIBLE_DEVICES"]
    assert cluster.run(*job).stdout.splitlines() == devices * 2


def test_accounting_knows_the_tasks_of_an_array(cluster, sbatch):
    job_id = sbatch("echo $SLURM_ARRAY_TASK_ID", "--array=0-3")
    tasks = [f"{job_id}_{i}" for i in range(4)]
    for task in tasks:
        cluster.wait_for(task, "COMPLETED")
    assert [(cluster.shared / f"testbed-{task}.out").read_text() for task in tasks] == ["0\n", "1\n", "2\n", "3\n"]
    query = ["sacct", "--noheader", "--parsable2", "--allocations", f"--jobs={job_id}", "--format=jobid,state"]
    deadline = time.monotonic() + 20
    while sorted(cluster.run(*query).stdout.split()) != [f"{task}|COMPLETED" for task in tasks]:
        assert time.monotonic() < deadline, cluster.run(*query).stdout
        time.sleep(0.2)  # accounting lags behind squeue


def test_an_array_index_has_a_limit(cluster):
    job = ["sbatch", "--array=64", "--wrap=true"]
    assert "Invalid job array specification" in cluster.run(*job, check=False).stderr


def test_a_site_without_accounting_has_squeue_but_no_sacct(cluster):
    env = cluster.env_without_accounting
    assert cluster.run("squeue", env=env).returncode == 0
    assert "accounting storage is disabled" in cluster.run("sacct", env=env, check=False).stderr


def test_a_requeued_job_comes_back(cluster, sbatch):
    job_id = sbatch('[ "$SLURM_RESTART_COUNT" = 1 ] || sleep 300')
    cluster.wait_for(job_id, "RUNNING")
    cluster.run("scontrol", "requeue", job_id)
    cluster.wait_for(job_id, "COMPLETED")


def test_a_job_that_fills_its_memory_ends_as_out_of_memory(cluster, sbatch):
    if not MEMORY_CGROUP.exists():
        pytest.skip("this machine has no memory cgroup of version 1")
    job_id = sbatch(f'{sys.executable} -c "bytearray(2**29)"', "--mem=100")
    cluster.wait_for(job_id, "OUT_OF_MEMORY")


def test_a_job_yields_to_a_higher_partition_and_returns(cluster, sbatch):
    job_id = sbatch('[ "$SLURM_RESTART_COUNT" = 1 ] || sleep 300', "--partition=preempt", "--gpus=2")
    cluster.wait_for(job_id, "RUNNING")
    node = cluster.run("squeue", "--noheader", f"--jobs={job_id}", "--format=%N").stdout.strip()
    other_id = sbatch("true", "--partition=gpu", "--gpus=2", f"--nodelist={node}")
    cluster.wait_for(other_id, "COMPLETED")
    cluster.wait_for(job_id, "COMPLETED")
    records = ["sacct", "--noheader", "--parsable2", "--allocations", "--duplicates", "--format=state"]
    assert cluster.run(*records, f"--jobs={job_id}").stdout.split() == ["PREEMPTED", "COMPLETED"]


def test_a_node_that_dies_is_noticed_and_its_job_returns(cluster, sbatch):
    job_id = sbatch('[ "$SLURM_RESTART_COUNT" = 1 ] || sleep 300', "--nodelist=node1,node2")
    cluster.wait_for(job_id, "RUNNING")
    cluster.kill_node(2)
    try:
        cluster.wait_for(job_id, "PENDING")
        assert cluster.run("sinfo", "--noheader", "--nodes=node2", "--format=%T").stdout.split()[0].endswith("*")
    finally:
        cluster.start_node(2)
    cluster.wait_for(job_id, "COMPLETED")


def test_a_job_past_its_limit_ends_as_timeout(cluster, job_past_its_limit):
    cluster.wait_for(job_past_its_limit, "TIMEOUT")


def test_up_mends_what_died(cluster):
    testbed = [sys.executable, TESTBED]
    for host, daemon in ("controller", "slurmctld"), ("node3", "slurmd"):
        cluster.run(*testbed, "exec", host, "--", "pkill", "-KILL", "--exact", daemon)
        assert cluster.run(*testbed, "status", check=False).returncode == 1
        cluster.run(*testbed, "up")
        cluster.run(*testbed, "status")
    assert cluster.run("srun", "--nodelist=node3", "hostname").stdout == "node3\n"
