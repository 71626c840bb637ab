"""The parsers of Slurm's output, on texts of Slurm 22.05."""

import pytest

from hpcai500.errors import MachineError, PreemptedError, RankError, SpecError
from hpcai500.files import digest
from hpcai500.launch.allocation.slurm import own_job_id, read_allocation
from hpcai500.launch.diagnosis import explain
from hpcai500.launch.environment import Machine, surrounding
from hpcai500.launch.launcher import RankEnvironment, RankStart
from hpcai500.launch.launchers.srun import expand_counts
from hpcai500.launch.layout import Allocation, layout_of, ranks_of
from hpcai500.launch.registry import find_launcher
from hpcai500.launch.slurm.queue import Job, job_name, seed_of
from hpcai500.launch.slurm.submission import split_seeds
from hpcai500.launch.start import start_command, training_worker

BATCH = {"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "3", "SLURM_TASKS_PER_NODE": "1(x3)"}


@pytest.mark.parametrize(
    ("env", "tasks"),
    [
        (BATCH, (1, 1, 1)),
        (BATCH | {"SLURM_GPUS_ON_NODE": "4"}, (4, 4, 4)),
        (BATCH | {"SLURM_GPUS_PER_NODE": "a100:8"}, (8, 8, 8)),
        (BATCH | {"SLURM_NTASKS": "4", "SLURM_TASKS_PER_NODE": "2,1(x2)", "SLURM_GPUS_ON_NODE": "4"}, (2, 1, 1)),
        (BATCH | {"SLURM_NTASKS_PER_NODE": "2", "SLURM_TASKS_PER_NODE": "2(x3)"}, (2, 2, 2)),
    ],
)
def test_an_allocation_s_ranks_are_the_tasks_asked_for_or_one_a_gpu_or_one_a_node(env, tasks):
    assert read_allocation(env).tasks_per_node == tasks
    assert read_allocation({}) is None


@pytest.mark.parametrize(
    "wrong", [{"SLURM_JOB_NUM_NODES": "x"}, {"SLURM_NTASKS": "2", "SLURM_TASKS_PER_NODE": "2(x"}]
)
def test_what_is_no_variable_of_slurm_s_is_one_line(wrong):
    with pytest.raises(SpecError, match="not as Slurm sets its variables"):
        read_allocation(BATCH | wrong)


def test_uneven_tasks_keep_their_number_and_even_ones_fill_the_nodes():
    def allocation(*tasks):
        return Allocation("7", tasks, 0, "")

    assert ranks_of(allocation(2, 2), None) == (2, 0)
    assert ranks_of(allocation(2, 1), None) == (2, 3)
    assert ranks_of(allocation(2, 1), 4) == (4, 0)
    with pytest.raises(SpecError, match="a node without a task"):
        ranks_of(allocation(1, 0), None)


def test_counts_and_job_numbers_are_read_as_slurm_writes_them():
    assert expand_counts("2(x3),1") == (2, 2, 2, 1)
    with pytest.raises(ValueError, match="tasks per node"):
        expand_counts("2(x")
    assert own_job_id({"SLURM_JOB_ID": "9"}) == "9"
    assert own_job_id({"SLURM_JOB_ID": "9", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "2"}) == "7_2"


def test_a_task_s_place_comes_from_its_step_also_where_nodes_are_uneven():
    env = {
        "SLURM_JOB_ID": "7", "SLURM_STEP_ID": "1", "SLURM_PROCID": "2", "SLURM_LOCALID": "0", "SLURM_NODEID": "1",
        "SLURM_STEP_NUM_TASKS": "3", "SLURM_STEP_TASKS_PER_NODE": "2,1", "SLURM_RESTART_COUNT": "4", "RANK": "9",
    }  # fmt: skip
    assert find_launcher("srun").require_rank_environment(env) == RankEnvironment(2, 3, 0, 1, "slurm-7-1-4")
    assert find_launcher("local").require_rank_environment({}) == RankEnvironment(0, 1, 0, 1)
    with pytest.raises(RankError, match="launcher srun left no 'SLURM_STEP_TASKS_PER_NODE'"):
        find_launcher("srun").require_rank_environment({"RANK": "0"})


def test_arrays_hold_seeds_as_indices_and_split_where_an_index_would_be_too_large():
    assert split_seeds([3, 0, 7], 64) == [(0, [0, 3, 7])]
    assert split_seeds([0, 63, 64, 127, 128, 500], 64) == [(0, [0, 63]), (64, [64, 127]), (128, [128]), (500, [500])]


def test_a_job_s_name_tells_which_run_it_is():
    name = job_name("my-load_2", "/r/seed", 64)
    key = digest("/r/seed")[:8]
    assert seed_of(Job("12_3", "PENDING", "", name)) == (key, 67)
    assert seed_of(Job("12", "PENDING", "", name)) == (key, 64)
    assert seed_of(Job("12", "PENDING", "", "hpcai500")) is None


def test_a_submission_hides_the_job_around_it_but_not_where_the_cluster_is():
    names = (
        "SLURM_CPU_BIND",
        "SBATCH_PARTITION",
        "PMIX_RANK",
        "SLURM_CONF",
        "MY_SLURM_",
        "HOROVOD_CONTROLLER",
        "RANK",
    )
    assert surrounding(dict.fromkeys(names, "x")) == [
        "HOROVOD_CONTROLLER", "PMIX_RANK", "RANK", "SBATCH_PARTITION", "SLURM_CPU_BIND",
    ]  # fmt: skip


def test_a_step_inside_an_allocation_gets_the_cores_but_not_the_binding_around_it(make_spec):
    spec = make_spec(launcher="srun", nodes=2, procs_per_node=2)
    env = {"SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "6", "SLURM_CPU_BIND": "mask", "SLURM_STEP_ID": "4"}
    machine = Machine("/venv/python", env, frozenset({0}))
    made = start_command(training_worker(spec), RankStart(layout_of(spec), in_allocation=True), machine)
    assert made.argv[:4] == ("srun", "--nodes=2", "--ntasks=4", "--ntasks-per-node=2")
    assert made.argv[-4:] == ("/venv/python", "-m", "hpcai500.train.worker", str(spec.folder / "run.json"))
    assert made.env == {"SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "6", "SRUN_CPUS_PER_TASK": "6"}


LOST = "RuntimeError: Connection closed by peer\n"


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        (f"{LOST}srun: error: node2: task 3: Killed\n", RankError, "rank 3 on node2: killed"),
        (
            "srun: error: node1: task 0: Exited with exit code 70\nsrun: error: node2: tasks 2-3: Segmentation fault "
            "(core dumped)\n",
            RankError,
            "rank 2-3 on node2: segmentation fault",
        ),
        (
            "slurmstepd: error: Detected 1 oom-kill event(s) in StepId=5.0. Some of your processes may have been "
            "killed by the cgroup out-of-memory handler.\nsrun: error: node1: task 1: Out Of Memory\n",
            MachineError,
            "exceeded the job's memory",
        ),
        ("srun: error: Node failure on node3\nsrun: Force Terminated StepId=5.0\n", RankError, "node node3 failed"),
        (
            "slurmstepd: error: *** STEP 5.0 ON node1 CANCELLED AT 2026-11-22T16:40:39 DUE TO TIME LIMIT ***\n",
            PreemptedError,
            "the job was cancelled due to time limit",
        ),
        (
            "slurmstepd-node1: error: *** STEP 63.0 ON node1 CANCELLED AT 2026-11-22T16:40:39 ***\n"
            "srun: error: node1: task 0: Terminated\n",
            PreemptedError,
            "the job was cancelled from outside",
        ),
    ],
)
def test_what_srun_prints_tells_the_cause(tmp_path, text, kind, message):
    error = explain([], text, 1, tmp_path / "stderr.log")
    assert isinstance(error, kind)
    assert message in str(error)
