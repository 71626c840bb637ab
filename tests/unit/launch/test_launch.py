import os
import signal
import threading
from pathlib import Path

import pytest

from hpcai500.errors import (
    HpcAi500Error,
    InputError,
    LibraryError,
    MachineError,
    PreemptedError,
    RankError,
    SpecError,
    format_failure,
    parse_failure,
)
from hpcai500.launch.allocation.slurm import read_allocation
from hpcai500.launch.decision import Wanted, decide
from hpcai500.launch.diagnosis import START_MARK, explain
from hpcai500.launch.environment import Machine
from hpcai500.launch.launcher import RankStart, StartCommand
from hpcai500.launch.layout import Layout, layout_of
from hpcai500.launch.process import execute
from hpcai500.launch.registry import find_launcher, job_launcher
from hpcai500.launch.requirements import missing
from hpcai500.launch.start import start_command, training_worker
from hpcai500.ranks.joining import join
from hpcai500.spec.run import RunSpec
from hpcai500.spec.site import Site, with_site_overrides

GOLDEN = Path(__file__).parents[2] / "golden"


ENV = {
    "PATH": "/bin", "RANK": "3", "MASTER_ADDR": "old", "TORCHELASTIC_RUN_ID": "old", "OMPI_COMM_WORLD_SIZE": "9",
    "PMIX_RANK": "3", "HOROVOD_RANK": "3", "HOROVOD_FUSION_THRESHOLD": "kept", "SECRET": "kept",
}  # fmt: skip


def machine(env=ENV, *, cpus=range(10), as_root=False) -> Machine:
    """A machine with one CPU per core."""
    return Machine("/usr/bin/python3", env, frozenset(cpus), as_root, Path("/absent"))


def planned(spec, site=None, *, in_allocation=False, **fields) -> StartCommand:
    step = RankStart(layout_of(spec), site or Site(), in_allocation=in_allocation)
    return start_command(training_worker(spec), step, machine(**fields))


def golden_plans(make_spec) -> dict[str, tuple[RunSpec, StartCommand]]:
    def spec(**fields) -> RunSpec:
        given = {"procs_per_node": 4, "output": "/results", "data": "/data", "unranked": False, **fields}
        return make_spec(overrides={"execution.deterministic": True}, **given)

    local, alone, by_horovod = spec(), spec(procs_per_node=1), spec(backend="horovod", launcher="horovodrun")
    by_mpi, in_job = spec(backend="horovod", launcher="mpirun"), spec(launcher="mpirun", nodes=2)
    uneven = spec(launcher="mpirun", nodes=2, procs_per_node=3, num_ranks=4)
    by_agents = spec(launcher="per-node", nodes=2)
    site = with_site_overrides(
        Site(), {"launcher": "mpirun", "network_interface": "ib0", "mpirun_arguments": ["--mca", "pml", "ucx"]}
    )
    job = {"SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "6", "SLURM_STEP_ID": "4", **ENV}
    on_node_1 = RankStart(layout_of(by_agents), node_index=1, name="mine")
    return {
        "local": (local, planned(local)),
        "local_alone": (alone, planned(alone)),
        "horovodrun": (by_horovod, planned(by_horovod)),
        "mpirun": (by_mpi, planned(by_mpi, as_root=True)),
        "mpirun_in_job": (in_job, planned(in_job, site, in_allocation=True, env={**job, "SLURMD_NODENAME": "n1"})),
        "mpirun_uneven": (uneven, planned(uneven, site, in_allocation=True, env=job)),
        "per_node": (by_agents, start_command(training_worker(by_agents), on_node_1, machine())),
    }


PLANS = ["local", "local_alone", "horovodrun", "mpirun", "mpirun_in_job", "mpirun_uneven", "per_node"]


@pytest.mark.parametrize("name", PLANS)
def test_the_plan_of_each_launcher_is_the_accepted_one(make_spec, name):
    """To accept a change: paste the new text into tests/golden/plan_NAME.txt."""
    spec, made = golden_plans(make_spec)[name]
    text = "\n".join([*made.argv, *(f"{key}={value}" for key, value in sorted(made.env.items()))]) + "\n"
    assert text.replace(spec.experiment_digest[:8], "DIGEST") == (GOLDEN / f"plan_{name}.txt").read_text()


def test_threads_that_the_user_set_are_kept(make_spec):
    cpus = range(8)
    assert planned(make_spec(), env={"OMP_NUM_THREADS": "3"}, cpus=cpus).env["OMP_NUM_THREADS"] == "3"
    assert planned(make_spec(), env={}, cpus=cpus).env["OMP_NUM_THREADS"] == "8"


def test_what_horovodrun_chose_for_its_own_ranks_is_not_for_those_of_mpi(make_spec):
    spec = make_spec(backend="horovod", launcher="mpirun")
    for chosen, kept in (("gloo", None), ("GLOO", None), ("ccl", "ccl")):
        env = {"HOROVOD_CPU_OPERATIONS": chosen, "HOROVOD_CONTROLLER": "gloo"}
        made = planned(spec, env=env)
        assert (made.env.get("HOROVOD_CPU_OPERATIONS"), made.env.get("HOROVOD_CONTROLLER")) == (kept, None)


def test_of_several_names_that_one_launcher_is_asked_for_the_nearest_is_named():
    with pytest.raises(SpecError, match="unknown launcher 'mpirnu'; did you mean 'mpirun'") as error:
        find_launcher("mpirnu")
    assert "per-node" not in str(error.value)
    with pytest.raises(SpecError, match=r"slurm\.launcher: local cannot start ranks on the nodes of a job"):
        job_launcher("local")


def told(*errors):
    return [parse_failure(format_failure(error, rank)) for rank, error in errors]


REPORT = """\
Root Cause (first observed failure):
[0]:
  rank      : 5 (local_rank: 1)
  exitcode  : -9 (pid: 5094)  (SIGKILL)
[1]:
  rank      : 4 (local_rank: 0)
  exitcode  : 70 (pid: 5093)
"""


def test_the_rank_with_a_reason_of_its_own_is_the_cause():
    failures = told((0, MachineError("disk full", "free some")), (1, InputError("bad file", "mend it")))
    error = explain(failures, REPORT, 1, Path("log"))
    assert str(error) == "rank 0: disk full; free some"
    assert error.exit_code == 3


def test_a_signal_is_the_cause_where_the_other_ranks_only_lost_their_peer():

    error = explain(told((0, HpcAi500Error("RuntimeError: Connection closed"))), REPORT, 1, Path("log"))
    assert isinstance(error, RankError)
    assert str(error).startswith("rank 1 was ended by SIGKILL")


def test_of_ranks_that_know_no_reason_the_one_that_lost_no_peer_is_the_cause():
    failures = told(
        (1, HpcAi500Error("RuntimeError: Connection closed by peer")), (3, HpcAi500Error("KeyError: 'x'"))
    )
    cancelled = "slurmstepd: error: *** STEP 5.0 ON node1 CANCELLED AT 2026-11-22T16:40:39 ***\n"
    assert str(explain(failures, cancelled, 70, Path("log"))).startswith("rank 3: KeyError")


def test_a_launcher_that_says_nothing_is_our_bug_with_the_log_s_place():
    error = explain([], "last words\n", 3, Path("/x/stderr.log"))
    assert error.exit_code == 70
    assert "exit code 3: last words; see /x/stderr.log" in str(error)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "mpirun noticed that process rank 1 with PID 0 on node box exited on signal 9 (Killed).\n",
            "rank 1 on box was ended by SIGKILL; the machine may have run out of memory",
        ),
        (
            "RuntimeError: Horovod detected that one or more processes exited with non-zero status, thus causing the "
            "job to be terminated. The first process to do so was:\nProcess name: 3\nExit code: 139\n",
            "rank 3 was ended by SIGSEGV",
        ),
        (
            'The application appears to have been direct launched using "srun",\nbut OMPI was not built with SLURM\n',
            "srun's plugin does not fit the MPI library of the ranks; set `mpi` in the site's [slurm]",
        ),
    ],
)
def test_what_mpi_and_horovod_s_launchers_print_names_the_first_cause(text, message):
    error = explain(told((0, HpcAi500Error("HorovodInternalError: gone"))), text, 1, Path("log"))
    assert isinstance(error, RankError)
    assert str(error).startswith(message)


STOPPED = (0, PreemptedError("stopped by SIGTERM before training began"))
ENDS = {
    "torchrun": "[1]:\n  rank      : 0 (local_rank: 0)\n  exitcode  : 75 (pid: 3)\n"
    "Root Cause (first observed failure):\n[0]:\n  rank      : 1 (local_rank: 1)\n  exitcode  : {code} (pid: 2)\n",
    "mpirun": "mpirun noticed that process rank 1 with PID 0 on node box exited on signal {signal} (Its name).\n",
    "horovodrun": "The first process to do so was:\nProcess name: 1\nExit code: {shell}\n",
}


def ended(launcher: str, number: int) -> str:
    return ENDS[launcher].format(code=-number, signal=number, shell=128 + number)


@pytest.mark.parametrize("launcher", ENDS)
@pytest.mark.parametrize(("number", "name"), [(9, "SIGKILL"), (11, "SIGSEGV")])
def test_a_rank_that_died_before_training_is_no_preemption_though_its_peers_were_stopped(launcher, number, name):
    error = explain(told(STOPPED), ended(launcher, number), 1, Path("log"))
    assert error.exit_code == 1
    assert f"was ended by {name}" in str(error)
    assert ("run out of memory" in str(error)) == (name == "SIGKILL")


def test_srun_s_word_on_a_dead_rank_and_on_memory_outweighs_its_stopped_peers():
    killed = "srun: error: node2: task 1: Killed\nsrun: error: node1: task 0: Exited with exit code 75\n"
    assert str(explain(told(STOPPED), killed, 137, Path("log"))).startswith("rank 1 on node2: killed")
    oom = "slurmstepd: error: Detected 1 oom_kill event in StepId=5.0. Some of the step tasks have been OOM Killed.\n"
    assert explain(told(STOPPED), oom, 1, Path("log")).exit_code == 3


@pytest.mark.parametrize(
    "text",
    [
        "srun: error: node2: task 1: Exited with exit code 3\nsrun: error: node1: task 0: Exited with exit code 75\n",
        "The first process to do so was:\n\n  Process name: [[28413,1],1]\n  Exit code:    3\n",
        ended("torchrun", -3),
    ],
)
def test_a_rank_that_told_no_reason_is_no_preemption_though_its_peers_were_stopped(text):
    error = explain(told(STOPPED), text, 75, Path("log"))
    assert (error.exit_code, "rank 1" in str(error), "exit code 3" in str(error)) == (1, True, True)


def test_a_bug_before_training_is_no_preemption_unless_it_is_the_loss_of_a_stopped_peer():
    bug = (1, HpcAi500Error("KeyError: 'x'"))
    assert str(explain(told(STOPPED, bug), "", 75, Path("log"))) == "rank 1: KeyError: 'x'"
    lost = (1, LibraryError("gloo: Connection closed by peer [127.0.0.1]:7"))
    assert isinstance(explain(told(STOPPED, lost), "", 75, Path("log")), PreemptedError)
    assert explain(told(lost), "", 3, Path("log")).exit_code == 3
    assert "ended by SIGKILL" in str(explain(told(lost), ended("mpirun", 9), 3, Path("log")))


@pytest.mark.parametrize("launcher", ENDS)
@pytest.mark.parametrize("number", [10, 12, 15])
def test_a_stop_in_a_rank_s_first_moment_is_a_stop_too(launcher, number):
    for failures in ([], told(STOPPED), told((0, HpcAi500Error("RuntimeError: Connection reset by peer")))):
        assert isinstance(explain(failures, ended(launcher, number), 1, Path("log")), PreemptedError)


def test_what_mpirun_says_in_a_box_is_the_cause_and_not_the_ruler_below_it():
    ruler = "-" * 74
    text = (
        f"{ruler}\nAn ORTE daemon has unexpectedly failed after launch and before\ncommunicating back to mpirun. "
        f"This could be caused by a number\nof factors.\n\n* not finding the required libraries\n{ruler}\n"
        'Set MCA parameter "orte_base_help_aggregate" to 0 to see all help messages\n'
    )
    error = explain([], text, 1, Path("log"))
    assert isinstance(error, RankError)
    assert str(error) == (
        "mpirun: An ORTE daemon has unexpectedly failed after launch and before communicating back to mpirun. "
        "This could be caused by a number of factors; see log"
    )


def test_what_mpirun_says_goes_on_after_a_colon():
    ruler = "-" * 74
    said = "The system limit was reached.\nThis usually is caused by:\n\n1. too few\n   files.\n\nMore."
    text = f"{ruler}\n{said}\n{ruler}\n"
    assert str(explain([], text, 1, Path("log"))) == (
        "mpirun: The system limit was reached. This usually is caused by: 1. too few files; see log"
    )


def test_mpirun_on_a_login_node_is_not_bound_to_an_interface_that_the_nodes_have(make_spec):
    names = {"OMPI_MCA_btl_tcp_if_include", "OMPI_MCA_oob_tcp_if_include"}

    def variables(env, **software) -> dict[str, str]:
        software = {"network_interface": "ib0", **software}
        site = Site.model_validate({"slurm": {"launcher": "mpirun"}, "software": software})
        return planned(make_spec(launcher="mpirun"), site, in_allocation=True, env=env).env

    assert names & variables({"SLURMD_NODENAME": "n1"}).keys() == names
    assert names & variables({}).keys() == {"OMPI_MCA_btl_tcp_if_include"}
    own = {"OMPI_MCA_oob_tcp_if_include": "eno1"}
    assert variables({}, environment=own)["OMPI_MCA_oob_tcp_if_include"] == "eno1"


def stopped_at_once(tmp_path, script: str, stop_signal: signal.Signals, *, once: bool = False) -> HpcAi500Error:
    """The end of a command that runs `script` and is asked to stop when it begins."""
    (tmp_path / "log").touch()
    threading.Timer(0.1, lambda: os.kill(os.getpid(), signal.SIGTERM)).start()
    shell = StartCommand(("bash", "-c", script), dict(os.environ), stop_signal, is_asked_once=once)
    return execute(shell, tmp_path / "log", quiet=True)


def test_a_launcher_that_is_not_ready_hears_of_a_stop_again(tmp_path):
    script = "trap '' USR1; sleep 0.5; trap 'exit 3' USR1; for i in {1..99}; do sleep 0.1; done"
    failure = stopped_at_once(tmp_path, script, signal.SIGUSR1)
    assert (failure.exit_code, failure.message) == (75, "stopped by SIGTERM")


def test_torchrun_hears_of_a_stop_once(tmp_path):
    script = f"trap 'echo heard >>{tmp_path}/times' TERM; for i in {{1..25}}; do sleep 0.1; done; exit 1"
    assert stopped_at_once(tmp_path, script, signal.SIGTERM, once=True).exit_code == 75
    assert (tmp_path / "times").read_text() == "heard\n"


@pytest.mark.parametrize(
    ("code", "exit_code", "message"),
    [
        (-9, 1, "rank 0 was ended by SIGKILL; the machine may have run out of memory"),
        (-15, 75, "stopped before training began; `--resume` starts it"),
        (3, 1, "rank 0 ended with exit code 3: last words; see log"),
        (-40, 1, "rank 0 was ended by signal 40"),
    ],
)
def test_the_end_of_a_rank_without_a_launcher_is_its_own_word(code, exit_code, message):
    error = explain([], f"{START_MARK}\nlast words\n", code, Path("log"), is_rank=True)
    assert (error.exit_code, str(error)) == (exit_code, message)


def test_the_mark_of_a_start_is_no_last_word():
    assert str(explain([], f"{START_MARK}\n", 5, Path("log"), is_rank=True)) == (
        "rank 0 ended with exit code 5: no output; see log"
    )


def test_a_launcher_that_a_signal_ended_is_named_with_it():
    assert "the launcher was ended by SIGKILL: no output" in str(explain([], "", -9, Path("log")))


def test_a_rank_that_ends_by_itself_under_mpirun_is_no_signal():
    text = "The first process to do so was:\n\n  Process name: [[28413,1],1]\n  Exit code:    3\n"
    assert str(explain(told((1, HpcAi500Error("RuntimeError: a bug"))), text, 3, Path("log"))) == (
        "rank 1: RuntimeError: a bug"
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"launcher": "horovodrun"}, "launcher horovodrun starts no ranks of backend torch, only of horovod"),
        ({"backend": "mpi", "launcher": "local"}, "launcher local starts no ranks of backend mpi"),
        (
            {"backend": "horovod", "launcher": "local", "procs_per_node": 2},
            "local starts several ranks of backend torch",
        ),
        ({"backend": "horovod", "nodes": 2}, "horovodrun starts ranks on this machine only, not on 2 nodes"),
        ({"nodes": 2}, "launcher local starts ranks on this machine only, not on 2 nodes"),
        ({"launcher": "mpirun", "nodes": 2}, "launcher mpirun starts ranks on this machine only"),
        ({"launcher": "srun"}, "--launcher srun outside of an allocation"),
        ({"launcher": "srnu"}, "did you mean 'srun'"),
        ({"launcher": "per-node"}, "unknown launcher 'per-node'"),
    ],
)
def test_a_launcher_that_cannot_start_the_ranks_is_refused(fields, message):
    with pytest.raises(SpecError, match=message):
        decide(Wanted(**{"backend": "torch", **fields}), Site(), None, {})


def test_backends_differ_in_the_experiment_but_not_in_what_is_trained_and_launchers_in_nothing(make_spec):
    torch = make_spec(procs_per_node=2)
    horovod = make_spec(procs_per_node=2, backend="horovod", launcher="mpirun")
    assert torch.experiment_digest != horovod.experiment_digest
    assert torch.training_digest == horovod.training_digest
    other = make_spec(procs_per_node=2, backend="horovod", launcher="horovodrun")
    assert horovod.experiment_digest == other.experiment_digest
    assert make_spec(resume_from="/r").experiment_digest != make_spec().experiment_digest
    assert make_spec(resume_from="/r").experiment_digest == make_spec(resume_from="/s").experiment_digest


def test_what_is_missing_comes_with_the_command_that_gets_it(monkeypatch):
    monkeypatch.setattr("hpcai500.launch.software.find_spec", lambda name: None)
    monkeypatch.setattr("hpcai500.launch.software.which", lambda name: None)
    assert [name for name, _ in missing("torch", "mpirun")] == ["torch", "mpirun", "mpi4py"]
    assert list(missing("horovod", "horovodrun")) == [
        ("Horovod", "run `make horovod`, which builds it for this torch")
    ]
    assert [name for name, _ in missing("horovod", "srun")] == ["Horovod", "srun"]
    of_submission = [name for name, _ in missing("torch", "mpirun", packages_only=True)]
    assert of_submission == ["torch", "mpi4py"]  # mpirun itself may be only on the nodes


def test_processes_that_another_launcher_started_do_not_each_train_alone(tmp_path):
    with pytest.raises(RankError, match="the run asks for 1 ranks, but mpirun started 3"):
        join(Layout(device="cpu"), tmp_path, {"OMPI_COMM_WORLD_SIZE": "3"})


@pytest.mark.parametrize(
    ("env", "who", "times"),
    [
        ({"WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "none"}, "torchrun", 2),
        ({"OMPI_COMM_WORLD_SIZE": "3"}, "mpirun", 3),
        ({"SLURM_STEP_NUM_TASKS": "4"}, "srun", 4),
    ],
)
def test_a_command_that_was_started_several_times_is_refused(env, who, times):
    with pytest.raises(SpecError, match=f"{who} started this command {times} times"):
        decide(Wanted("torch"), Site(), None, env)


def test_mpirun_is_not_started_below_mpirun():
    env = {"OMPI_COMM_WORLD_SIZE": "1"}
    with pytest.raises(SpecError, match="mpirun started this command, and cannot start another mpirun in it"):
        decide(Wanted("torch", "mpirun"), Site(), None, env)
    in_job = with_site_overrides(Site(), {"launcher": "mpirun"})
    job = env | {"SLURM_JOB_ID": "7"}
    with pytest.raises(SpecError, match="cannot start another mpirun"):
        decide(Wanted("torch"), in_job, read_allocation(job), job)
    assert decide(Wanted("torch", on_gpus=False), in_job, None, env)[0].launcher == "local"


def test_horovodrun_does_not_leave_the_other_nodes_of_an_allocation_idle():
    env = {"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "2"}
    with pytest.raises(SpecError, match="starts ranks on this machine only, and the allocation has 2 nodes"):
        decide(Wanted("horovod", "horovodrun"), Site(), read_allocation(env), env)
    layout, allocation = decide(Wanted("torch", "local", procs_per_node=2), Site(), read_allocation(env), env)
    assert (layout.launcher, layout.nodes, allocation) == ("local", 1, None)  # a user who asks for local gets it


@pytest.mark.parametrize(("backend", "launcher"), [("torch", "srun"), ("mpi", "mpirun")])
def test_in_an_allocation_the_site_s_launcher_starts_all_but_ranks_of_mpi_alone(backend, launcher):
    env = {"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "2"}
    layout, _ = decide(Wanted(backend), Site(), read_allocation(env), env)
    assert (layout.launcher, layout.nodes) == (launcher, 2)


def test_variables_of_launchers_that_hold_no_number_are_no_launcher():
    env = {"OMPI_COMM_WORLD_SIZE": "", "PMI_SIZE": "abc", "WORLD_SIZE": "8"}
    layout, _ = decide(Wanted("torch", procs_per_node=2), Site(), None, env)
    assert (layout.launcher, layout.nodes, layout.procs_per_node) == ("local", 1, 2)


def test_peers_that_were_stopped_for_a_failed_rank_do_not_hide_it():
    stopped = (1, PreemptedError("stopped by SIGTERM before training began"))
    error = explain(told(stopped, (0, RankError("a world of 1"))), "", 75, Path("log"))
    assert str(error) == "rank 0: a world of 1"
    text = 'The application appears to have been direct launched using "srun",\n'
    error = explain(told(stopped), text, 75, Path("log"))
    assert str(error).startswith("srun's plugin does not fit")
    assert isinstance(explain(told(stopped), "", 75, Path("log")), PreemptedError)
