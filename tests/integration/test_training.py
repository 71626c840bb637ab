"""Real runs through the command line, each in separate processes."""

import json
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import psutil
import pytest
from forked_ranks import train
from PIL import Image
from short_runs import FEW_FRAMES, SMALL, losses, needs_compiler, options

from hpcai500.events.reader import find, first, read_events
from hpcai500.events.vocabulary import Key
from hpcai500.score.record.result import read_result

TINY = Path(__file__).parent / "tiny"


@pytest.fixture
def run(hpcai500, tmp_path, monkeypatch):
    """Run the tiny workload (or another) with a launcher. Return exit code, output and the run's folder."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")

    def call(*arguments, workload=TINY, data=None, output=None):
        output = output or tmp_path / "results"
        data = data or tmp_path
        before = set(output.rglob("run.json"))
        code, out, err = hpcai500(
            "run", workload, "--problem", "mini", "--data", data, "--output", output, "--system", "box", *arguments
        )
        made = set(output.rglob("run.json")) - before
        return subprocess.CompletedProcess(arguments, code, out, err), (made.pop().parent if made else None)

    return call


def one_line(process):
    assert process.stderr.count("\n") == 1, process.stderr
    assert process.stderr.startswith("hpcai500: error: ")
    return process.stderr


def test_a_run_logs_the_official_keys_scores_and_is_kept_when_asked_for_again(launched, hpcai500):
    assert launched.done.returncode == 0, launched.done.stderr
    folder = launched.folder
    events = read_events(folder / "events.log")
    counts = {key: sum(event.key == key for event in events) for key in {event.key for event in events}}
    once = (
        "submission_org", "submission_platform", "submission_division", "submission_benchmark", "submission_status",
        "init_stop", "run_start", "run_stop", "train_samples", "eval_samples", "global_batch_size", "opt_name",
    )  # fmt: skip
    assert [counts[key] for key in once] == [1] * len(once)
    assert min(counts["cache_clear"], counts["init_start"], counts["seed"]) >= 1
    pairs = ("epoch_start", "epoch_stop", "eval_start", "eval_stop", "eval_accuracy", "hpcai500.epoch")
    assert [counts[key] for key in pairs] == [3] * len(pairs)
    assert first(events, Key.CACHE_CLEAR).value is False
    assert first(events, Key.SUBMISSION_DIVISION).value == "open"
    assert first(events, Key.RUN_STOP).metadata["status"] == "success"
    assert all(a.time_ms <= b.time_ms for a, b in pairwise(events))
    last = find(events, Key.EPOCH)[-1]
    assert last.metadata["num_samples"] == 23  # an uneven share: 12 and 11
    result = read_result(folder / "result.json")
    # convolution 3 -> 8, 3x3, 6x6 outputs; linear 288 -> 4; the convolution's input needs no gradient
    assert result.flops.per_sample == 2 * (2 * 27 * 8 * 36) + 3 * (2 * 288 * 4)
    assert result.flops.total == 3 * 64 * result.flops.per_sample
    assert result.score.metric == "accuracy"
    assert all(0 < epoch.data_wait_sec < epoch.train_sec for epoch in result.epochs)
    assert result.peak_host_bytes > 50_000_000
    system = json.loads((folder / "system.json").read_text())
    assert system["nodes"][0]["layers"]["6"]["world_size"] == 2

    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    code, out, _ = hpcai500(*launched.tiny.command())
    assert (code, "done already, kept" in out) == (0, True)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_the_same_seed_gives_the_same_losses_on_1_2_and_4_ranks(tmp_path):
    curves = [losses(train(TINY, tmp_path / str(n), data=tmp_path, ranks=n, seed=5)) for n in (1, 2, 4)]
    assert curves[1] == pytest.approx(curves[0], rel=1e-4)
    assert curves[2] == pytest.approx(curves[0], rel=1e-4)


def test_deterministic_runs_are_bit_identical_with_dropout_too_however_their_ranks_are_started(launched, tmp_path):
    settings = launched.tiny.settings | {"execution.deterministic": True}
    for place in ("a", "b"):
        again = train(TINY, tmp_path / place, data=tmp_path, ranks=2, overrides=settings)
        assert losses(again) == losses(launched.folder)


@pytest.mark.parametrize(
    ("how", "code", "message"),
    [
        ("raise", 2, "rank 1: file 17: broken; replace it"),
        ("kill", 1, "rank 1 was ended by SIGKILL"),
        ("bug", 70, "rank 1: RuntimeError: a bug"),
    ],
)
def test_a_rank_that_dies_ends_the_others_and_the_log_says_why(run, killed, how, code, message):
    process, folder = killed.done, killed.folder
    if how != "kill":
        failing = ("--set", "model.fail_on_rank=1", "--set", f"model.fail_how={how}")
        process, folder = run("--procs-per-node", "2", *failing)
    assert process.returncode == code
    assert message in one_line(process)
    events = read_events(folder / "events.log")
    stop = first(events, Key.RUN_STOP)
    assert stop.metadata["status"] == "aborted"
    assert message in first(events, Key.FAILURE).value
    # the failing rank died as an epoch began; the log was closed within ten seconds
    assert stop.time_ms - find(events, Key.EPOCH_START)[-1].time_ms < 10_000
    assert read_result(folder / "result.json").status == "aborted"


def test_a_loss_that_is_not_finite_ends_the_run_as_diverged(run):
    process, folder = run("--set", "optimizer.learning_rate=1e30")
    assert process.returncode == 1
    assert "mean training loss is nan" in one_line(process)
    result = read_result(folder / "result.json")
    assert result.status == "diverged"
    assert result.unranked == ("status diverged",)


def test_synthetic_data_trains_and_is_never_ranked(run, hpcai500):
    process, folder = run("--precision", "bf16", "--stop-at-target", data="synthetic")
    assert process.returncode == 0, process.stderr
    assert "never ranked: synthetic data" in process.stdout
    result = read_result(folder / "result.json")
    assert len(result.epochs) == 1  # the target was reached in the first
    code, out, _ = hpcai500("rank", folder)
    assert code == 0
    assert "Not ranked (1)" in out


@needs_compiler
def test_compiled_fp16_lars_and_accumulation_train(tmp_path):
    settings = {
        "execution.precision": "fp16", "execution.compile": True, "optimizer.name": "lars",
        "optimizer.decay_norm_and_bias": False, "optimizer.learning_rate": 3.0,
    }  # fmt: skip
    folder = train(TINY, tmp_path / "results", data=tmp_path, overrides=settings)
    events = read_events(folder / "events.log")
    assert first(events, Key.GRADIENT_ACCUMULATION_STEPS).value == 4
    assert first(events, Key.WARM_UP).value["warm_up_sec"] > 0
    curve = losses(folder)
    assert curve[-1] < curve[0]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_every_process_and_closes_the_log(tmp_path, number):
    command = [
        sys.executable, "-m", "hpcai500.cli.main", "run", TINY, "--problem", "mini", "--data", tmp_path,
        "--output", tmp_path / "results", "--procs-per-node", "2",
        "--set", "model.fail_on_rank=1", "--set", "model.fail_how=hang",
    ]  # fmt: skip
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 90
    log = None
    while time.monotonic() < deadline:
        log = next(tmp_path.rglob("events.log"), None)
        if log and len(find(read_events(log), Key.EPOCH_START)) == 2:
            break
        time.sleep(0.2)
    process.send_signal(number)  # a rank that hangs cannot stop
    time.sleep(1)
    process.send_signal(number)
    process.wait(timeout=30)
    process.stdout.close()
    assert process.returncode == 1
    assert first(read_events(log), Key.RUN_STOP).metadata["status"] == "aborted"
    run_json = str(log.parent / "run.json")
    assert [
        found.pid for found in psutil.process_iter(["cmdline"]) if run_json in (found.info["cmdline"] or ())
    ] == []


def test_a_full_disk_ends_the_run_with_one_line_and_keeps_what_was_written(run, small_disk):
    disk = small_disk(48)
    process, _ = run("--set", "problem.num_epochs=300", "--unranked", output=disk)
    assert process.returncode == 3
    assert "No space left on device; free some space" in one_line(process)
    assert find(read_events(next(disk.rglob("events.log"))), Key.EPOCH)


def test_resnet_50_sees_the_same_global_batches_on_1_2_and_4_ranks(short_run):
    curves = [losses(short_run("image_classification", ranks)) for ranks in (1, 2, 4)]
    assert curves[1] == pytest.approx(curves[0], rel=1e-3)
    assert curves[2] == pytest.approx(curves[0], rel=1e-3)
    events = read_events(short_run("image_classification", 4) / "events.log")
    assert first(events, Key.SUBMISSION_BENCHMARK).value == "resnet"


def test_a_corrupt_image_stops_a_run_with_its_name(run, digits, tmp_path):
    broken = tmp_path / "broken"
    subprocess.run(["cp", "-r", digits, broken], check=True)
    victim = broken / "val" / "digit_3" / "0.JPEG"
    victim.write_bytes(victim.read_bytes()[:200])
    process, folder = run(
        *options(SMALL), "--set", "execution.num_loader_workers=1",
        workload="image_classification", data=broken,
    )  # fmt: skip
    assert process.returncode == 2
    assert f"{victim}: cannot be decoded" in one_line(process)
    assert first(read_events(folder / "events.log"), Key.RUN_STOP).metadata["status"] == "aborted"


def test_extreme_weather_trains_alike_on_1_2_and_4_ranks_from_staged_frames_and_shows_its_predictions(
    short_run, weather, tmp_path, hpcai500
):
    curves = [losses(short_run("extreme_weather", ranks)) for ranks in (1, 2, 4)]
    folder = short_run("extreme_weather", 4)
    assert curves[1] == pytest.approx(curves[0], rel=1e-3)
    assert curves[2] == pytest.approx(curves[0], rel=1e-3)
    events = read_events(folder / "events.log")
    assert first(events, Key.STAGING_START).time_ms <= first(events, Key.STAGING_STOP).time_ms
    assert first(events, Key.STAGING_STOP).time_ms <= first(events, Key.RUN_START).time_ms
    assert "ap_tropical_cyclone" in find(events, Key.EPOCH)[-1].metadata
    assert [record["index"] for record in json.loads((folder / "evaluation.json").read_text())] == list(range(4))

    picture = tmp_path / "frame.png"
    code, _, err = hpcai500(
        "data", "show", "extreme_weather", "3", "--problem", "mini", "--data", weather, "--predictions", folder,
        "--channels", "TMQ,PSL,U850", "--image", picture,
    )  # fmt: skip
    assert code == 0, err
    with Image.open(picture) as image:
        assert image.size[0] == 2 * 768
    code, _, err = hpcai500("data", "show", "extreme_weather", "99", "--problem", "mini", "--data", weather)
    assert code == 2
    assert "frames 0 to 3" in err


def test_a_truncated_climate_file_stops_a_run_with_its_name(run, weather, tmp_path):
    broken = tmp_path / "broken"
    subprocess.run(["cp", "-r", weather, broken], check=True)
    victim = broken / "climo_1979.h5"
    with victim.open("r+b") as file:
        file.truncate(victim.stat().st_size // 2)
    process, folder = run(*options(FEW_FRAMES), workload="extreme_weather", data=broken)
    assert process.returncode == 2
    assert str(victim) in one_line(process)
    assert first(read_events(folder / "events.log"), Key.RUN_STOP).metadata["status"] == "aborted"
