"""Interrupted runs that go on: real processes, real signals, real files."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hpcai500.events.reader import find, first, read_events
from hpcai500.events.vocabulary import Key
from hpcai500.score.result import read_result

TINY = Path(__file__).parent / "tiny"
OFFICIAL_ONCE = (
    Key.SUBMISSION_ORG, Key.SUBMISSION_BENCHMARK, Key.INIT_STOP, Key.RUN_START, Key.RUN_STOP, Key.TRAIN_SAMPLES,
)  # fmt: skip


class Bench:
    """One experiment, to be run in several places; `data` holds the orders that the tiny workload obeys."""

    def __init__(self, folder):
        self.data = folder / "data"
        self.data.mkdir()
        self.folder = folder

    def start(self, place, *arguments):
        command = [
            sys.executable, "-m", "hpcai500.cli.main", "run", TINY, "--problem", "mini", "--data", self.data,
            "--output", self.folder / place, "--procs-per-node", "2", "--deterministic",
            "--set", "model.dropout=0.5", *arguments,
        ]  # fmt: skip
        return subprocess.Popen(
            [str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def run(self, place, *arguments):
        process = self.start(place, *arguments)
        out, err = process.communicate(timeout=120)
        return process.returncode, out, err

    def run_folder(self, place):
        (path,) = (self.folder / place).rglob("run.json")
        return path.parent

    def wait_for(self, place, key, count):
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            log = next((self.folder / place).rglob("events.log"), None)
            if log and len(find(read_events(log), key)) >= count:
                return
            time.sleep(0.05)
        raise TimeoutError(key)


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Loss and quality of each epoch of the experiment when nothing interrupts it."""
    bench = Bench(tmp_path_factory.mktemp("undisturbed"))
    code, _, err = bench.run("undisturbed")
    assert code == 0, err
    return curve(bench.run_folder("undisturbed"))


def curve(folder):
    return [(row.train_loss, row.quality) for row in read_result(folder / "result.json").epochs]


def require_whole(folder):
    """No event lost and none twice."""
    events = read_events(folder / "events.log")
    assert [len(find(events, key)) for key in OFFICIAL_ONCE] == [1] * len(OFFICIAL_ONCE)
    for key in (Key.EPOCH_START, Key.EPOCH_STOP, Key.EVAL_START, Key.EVAL_STOP, Key.EVAL_ACCURACY, Key.EPOCH):
        assert [event.metadata["epoch_num"] for event in find(events, key)] == [1, 2, 3]
    return events


def test_a_signal_in_the_middle_of_an_epoch_ends_in_a_checkpoint_and_the_same_curve(bench, undisturbed):
    (bench.data / "slow").touch()
    process = bench.start("stopped")
    bench.wait_for("stopped", Key.EPOCH_START, 2)
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75, err
    assert "stopped in epoch 2 after step" in err
    folder = bench.run_folder("stopped")
    assert read_result(folder / "result.json").status == "preempted"

    code, _, err = bench.run("stopped")
    assert code == 2
    assert "holds an unfinished run; --resume goes on with it" in err

    (bench.data / "slow").unlink()
    code, _, err = bench.run("stopped", "--resume")
    assert code == 0, err
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
    code, out, _ = bench.run("stopped", "--resume")
    assert code == 0
    assert "done already, kept" in out


@pytest.mark.parametrize("harm", ["none", "torn", "altered", "all gone"])
def test_a_killed_rank_loses_only_what_its_checkpoints_do_not_hold(bench, undisturbed, harm):
    (bench.data / "kill-rank-1-epoch-3").write_text("2")
    code, _, err = bench.run("killed")
    assert code == 1
    assert "rank 1 was ended by SIGKILL" in err
    folder = bench.run_folder("killed")
    assert read_result(folder / "result.json").status == "aborted"
    older, newer = sorted((folder / "checkpoint").glob("*.pt"))
    content = newer.read_bytes()
    if harm == "torn":
        newer.write_bytes(content[: len(content) // 2])
    elif harm == "altered":
        newer.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif harm == "all gone":
        newer.unlink()
        older.unlink()

    code, _, err = bench.run("killed", "--resume")
    assert code == 0, err
    assert curve(folder) == undisturbed
    events = require_whole(folder)
    resumed = first(events, Key.RESUMED).value
    assert (resumed["epoch"], resumed["step"]) == ({"none": 3, "all gone": 1}.get(harm, 2), 0)
    said = {"torn": "bytes of", "altered": "its checksum differs", "all gone": "its file is missing"}
    assert [reason for reason in resumed["passed_over"][:1] if said[harm] in reason] if harm != "none" else True
    (interruption,) = read_result(folder / "result.json").interruptions
    assert not interruption.graceful
    assert (folder / "logs" / "events-1.log").read_text().count('"run_stop"') == 1


def test_every_interruption_is_counted_and_the_clock_runs_through_all(bench, undisturbed):
    for epoch in (1, 2, 2):
        (bench.data / f"kill-rank-1-epoch-{epoch}").touch()
        assert bench.run("thrice", "--resume")[0] == 1
    code, _, err = bench.run("thrice", "--resume")
    assert code == 0, err
    folder = bench.run_folder("thrice")
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
