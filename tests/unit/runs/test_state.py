"""The state of a run, from its files and from Slurm."""

import json

import pytest

from hpcai500.errors import HpcAi500Error
from hpcai500.launch.diagnosis import START_MARK
from hpcai500.report.status import status_record, status_table
from hpcai500.runs.state import State, newest_job, runs_below, survey


@pytest.fixture
def submitted(make_spec):
    """The folder of a run that is job 7; `stderr` is what its ranks left."""

    def submitted(seed=0, stderr="", starts=""):
        spec = make_spec(seed=seed)
        spec.write()
        (spec.folder / "job.json").write_text(json.dumps({"schema_version": 1, "job_id": "7"}))
        if starts:
            (spec.folder / "logs" / "jobs").write_text(starts)
        if stderr:
            (spec.folder / "logs" / "stderr.log").write_text(f"{START_MARK} now\n{stderr}\n")
        return spec.folder

    return submitted


def state_of(folder):
    (row,) = survey([folder])
    return row.state, row.detail


def test_a_log_that_ends_well_or_badly_needs_no_slurm(make_spec, write_run, write_diverged, slurm):
    slurm()
    assert state_of(write_run(make_spec(seed=0), [0.9])) == (State.DONE, "")
    assert state_of(write_diverged(make_spec(seed=1))) == (State.FAILED, "the loss is nan")
    state, detail = state_of(write_run(make_spec(seed=2), [0.9], stop=None))
    assert (state, "last event 2023-" in detail) == (State.SILENT, True)
    unstarted = make_spec(seed=3)
    unstarted.write()
    assert state_of(unstarted.folder) == (State.NOT_STARTED, "")


@pytest.mark.parametrize(
    ("queued", "state", "detail"),
    [
        ("7|PENDING|Priority|x|\n", State.QUEUED, "Priority"),
        ("7|RUNNING|None|x|n[1-2]\n", State.RUNNING, "starting on n[1-2]"),
    ],
)
def test_a_live_job_s_run_is_queued_or_running(submitted, slurm, queued, state, detail):
    slurm(queued=queued)
    assert state_of(submitted()) == (state, detail)


def test_a_requeued_job_says_that_it_will_continue(submitted, make_spec, write_run, slurm):
    log = (write_run(make_spec(seed=5), [0.9], stop=None) / "events.log").read_text()
    folder = submitted()
    (folder / "events.log").write_text(log)
    slurm(queued="7|PENDING|BeginTime|x|\n")
    assert state_of(folder) == (State.QUEUED, "BeginTime, to continue")
    slurm(queued="7|RUNNING|None|x|n1\n")
    (row,) = survey([folder])
    assert (row.state, row.epochs_done, row.quality) == (State.RUNNING, 1, 0.9)
    assert row.left_sec == pytest.approx((row.result.num_epochs - 1) * 10.0)


@pytest.mark.parametrize(
    ("ended", "state", "detail"),
    [
        ("OUT_OF_MEMORY", State.FAILED, "exceeded the job's memory"),
        ("TIMEOUT", State.PREEMPTED, "time limit"),
        ("NODE_FAIL", State.FAILED, "a node of n1 failed"),
        ("CANCELLED by 0", State.PREEMPTED, "cancelled; submit again to continue"),
        ("FAILED", State.FAILED, "before its script began"),
        ("BOOT_FAIL", State.FAILED, "ended as BOOT_FAIL"),
    ],
)
def test_the_accounts_say_how_a_job_ended(submitted, slurm, ended, state, detail):
    slurm(ended=f"7|{ended}|None|x|n1\n")
    found, why = state_of(submitted())
    assert (found, detail in why) == (state, True), why


def test_what_the_ranks_left_says_more_than_a_failed_job(submitted, slurm):
    slurm(ended="7|FAILED|None|x|n1\n")
    state, detail = state_of(submitted(starts="7 7 0\n", stderr="ValueError: too odd"))
    assert (state, "ValueError: too odd" in detail) == (State.FAILED, True), detail


def test_a_job_that_slurm_forgot_left_no_trace(submitted, slurm):
    slurm()
    assert state_of(submitted()) == (State.NOT_STARTED, "job 7 left no trace")


def test_without_slurm_a_job_s_run_is_silent(submitted, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path / "absent"))
    assert state_of(submitted()) == (State.SILENT, "no Slurm on this machine to ask about job 7")


def test_the_newest_of_several_jobs_counts(submitted):
    assert newest_job(submitted(starts="9_3 9 0\n10_3 10 1\n")) == "10_3"
    torn = submitted(seed=1)
    (torn / "job.json").write_text("{")
    assert newest_job(torn) == ""


def test_a_run_that_cannot_be_read_is_named_or_raised(make_spec, write_run, slurm):
    slurm()
    good, bad = write_run(make_spec(seed=0), [0.9]), write_run(make_spec(seed=1), [0.9])
    (bad / "run.json").write_text("{}")
    unreadable = {}
    assert [row.folder for row in survey([good, bad], unreadable)] == [good]
    assert list(unreadable) == [bad]
    with pytest.raises(HpcAi500Error):
        survey([good, bad])


def test_the_table_has_a_line_per_run_and_the_reason_below(make_spec, write_run, write_diverged, slurm):
    slurm()
    write_run(make_spec(seed=0), [0.5, 0.9])
    folder = write_diverged(make_spec(seed=1))
    rows = survey(runs_below([folder.parent]))
    lines = status_table(rows).splitlines()
    assert [line.split()[3:6] for line in lines[2:4]] == [["1x1", "0", "done"], ["1x1", "1", "failed"]]
    assert lines[4].startswith("  seed 1 (")
    record = status_record(rows[0])
    assert (record["state"], record["epochs_done"], record["quality"], record["job_id"]) == ("done", 2, 0.9, None)
