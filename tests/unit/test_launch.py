from pathlib import Path

from hpcai500.errors import HpcAi500Error, InputError, MachineError, RankError, format_failure, parse_failure
from hpcai500.launch.diagnosis import explain
from hpcai500.launch.plan import plan_local

GOLDEN = Path(__file__).parent.parent / "golden"


def test_the_local_plan_is_torchrun_with_the_cores_shared(make_spec):
    """To accept a change: paste the new text into tests/golden/plan_local.txt."""
    spec = make_spec(
        procs_per_node=4, output="/results", data="/data", overrides={"execution.deterministic": True}, unranked=False
    )
    env = {"PATH": "/bin", "RANK": "3", "MASTER_ADDR": "old", "TORCHELASTIC_RUN_ID": "old", "SECRET": "kept"}
    plan = plan_local(spec, python="/usr/bin/python3", num_cores=10, env=env)
    digest = spec.experiment_digest[:8]
    text = "\n".join([*plan.argv, *(f"{key}={value}" for key, value in sorted(plan.env.items()))]) + "\n"
    assert text.replace(digest, "DIGEST") == (GOLDEN / "plan_local.txt").read_text()


def test_threads_that_the_user_set_are_kept(make_spec):
    assert (
        plan_local(make_spec(), python="p", num_cores=8, env={"OMP_NUM_THREADS": "3"}).env["OMP_NUM_THREADS"] == "3"
    )
    assert plan_local(make_spec(), python="p", num_cores=8, env={}).env["OMP_NUM_THREADS"] == "8"


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
