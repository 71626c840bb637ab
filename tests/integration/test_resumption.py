"""Interrupted runs that continue, with real processes, real signals and real files."""

import signal
import time

import pytest
from forked_ranks import resume, start

from hpcai500.events.reader import find, first, read_events
from hpcai500.events.vocabulary import Key
from hpcai500.score.record.result import read_result
from hpcai500.score.rules.check import check_entry

OFFICIAL_ONCE = (
    Key.SUBMISSION_ORG, Key.SUBMISSION_BENCHMARK, Key.INIT_STOP, Key.RUN_START, Key.RUN_STOP, Key.TRAIN_SAMPLES,
)  # fmt: skip


@pytest.fixture
def undisturbed(launched):
    """Loss and quality of each epoch of the experiment when nothing interrupts it."""
    assert launched.done.returncode == 0, launched.done.stderr
    return curve(launched.folder)


def curve(folder):
    return [(row.train_loss, row.quality) for row in read_result(folder / "result.json").epochs]


def require_whole(folder):
    """Check that no event is lost and none occurs twice."""
    events = read_events(folder / "events.log")
    assert [len(find(events, key)) for key in OFFICIAL_ONCE] == [1] * len(OFFICIAL_ONCE)
    for key in (Key.EPOCH_START, Key.EPOCH_STOP, Key.EVAL_START, Key.EVAL_STOP, Key.EVAL_ACCURACY, Key.EPOCH):
        assert [event.metadata["epoch_num"] for event in find(events, key)] == [1, 2, 3]
    return events


def wait_for(output, key, count):
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        log = next(output.rglob("events.log"), None)
        if log and len(find(read_events(log), key)) >= count:
            return
        time.sleep(0.05)
    raise TimeoutError(key)


def test_a_signal_in_the_middle_of_an_epoch_ends_in_a_checkpoint_and_the_same_curve(tiny, undisturbed, hpcai500):
    (tiny.data / "slow").touch()
    process = tiny.start()
    wait_for(tiny.output, Key.EPOCH_START, 2)
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75, err
    assert "stopped in epoch 2 after step" in err
    folder = tiny.folder()
    assert read_result(folder / "result.json").status == "preempted"

    code, _, err = hpcai500(*tiny.command())
    assert code == 2
    assert "holds an unfinished run; --resume continues it" in err

    (tiny.data / "slow").unlink()
    done = tiny.run("--resume")
    assert done.returncode == 0, done.stderr
    assert curve(folder) == undisturbed
    events = require_whole(folder)
    result = read_result(folder / "result.json")
    (interruption,) = result.interruptions
    assert (interruption.epoch, interruption.graceful, interruption.lost_sec) == (2, True, 0.0)
    assert 0 < interruption.step < 4
    start, stop = first(events, Key.RUN_START), first(events, Key.RUN_STOP)
    assert result.time.total_sec == pytest.approx((stop.time_ms - start.time_ms) / 1_000)
    assert result.time.total_sec > interruption.down_sec > 0  # the clock ran on
    assert len(list((folder / "checkpoint").glob("*.pt"))) == 1
    code, out, _ = hpcai500(*tiny.command("--resume"))
    assert code == 0
    assert "done already, kept" in out


@pytest.mark.parametrize("harm", ["none", "torn", "altered", "all gone"])
def test_a_killed_rank_loses_only_what_its_checkpoints_do_not_hold(killed, undisturbed, harm):
    assert killed.done.returncode == 1
    assert "rank 1 was ended by SIGKILL" in killed.done.stderr
    folder = killed.folder
    assert read_result(folder / "result.json").status == "aborted"
    assert not (folder / "manifest.json").exists()
    older, newer = sorted((folder / "checkpoint").glob("*.pt"))
    content = newer.read_bytes()
    if harm == "torn":
        newer.write_bytes(content[: len(content) // 2])
    elif harm == "altered":
        newer.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif harm == "all gone":
        newer.unlink()
        older.unlink()

    if harm == "none":
        done = killed.tiny.run("--resume")
        assert done.returncode == 0, done.stderr
    else:
        resume(folder)
    assert curve(folder) == undisturbed
    events = require_whole(folder)
    resumed = first(events, Key.RESUMED).value
    assert (resumed["epoch"], resumed["step"]) == ({"none": 3, "all gone": 1}.get(harm, 2), 0)
    said = {"torn": "bytes of", "altered": "its checksum differs", "all gone": "its file is missing"}
    assert [reason for reason in resumed["passed_over"][:1] if said[harm] in reason] if harm != "none" else True
    (interruption,) = read_result(folder / "result.json").interruptions
    assert not interruption.graceful
    assert (folder / "logs" / "events-1.log").read_text().count('"run_stop"') == 1
    assert check_entry([folder], whole_set=False).breaches == ()


def test_every_interruption_is_counted_and_the_clock_runs_through_all(killed, undisturbed):
    """Two interruptions in one epoch, by a launcher that closes the log and by ranks that end silently."""
    order = killed.tiny.data / "kill-rank-1-epoch-3"
    order.touch()
    assert killed.tiny.run("--resume").returncode == 1
    order.touch()
    assert -signal.SIGKILL in start(killed.folder)[0]
    folder = resume(killed.folder)
    assert curve(folder) == undisturbed
    events = require_whole(folder)
    result = read_result(folder / "result.json")
    assert len(result.interruptions) == 3
    told = sum(stop.down_sec + stop.lost_sec for stop in result.interruptions)
    assert told < result.time.total_sec
    assert (
        first(events, Key.RUN_START).time_ms
        == first(read_events(folder / "logs" / "events-1.log"), Key.RUN_START).time_ms
    )
