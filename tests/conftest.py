"""Fixtures for several tests: specs, a run's folder made by hand, and the command line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hpcai500.cli.main import main
from hpcai500.events.vocabulary import Key, Type
from hpcai500.events.writer import format_line
from hpcai500.spec.levels import Level
from hpcai500.spec.run import RunSpec, resolve

TINY = Path(__file__).parent / "integration" / "tiny"

if "PYTEST_XDIST_WORKER" in os.environ:  # tests that run beside others leave them the cores while they wait
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Give the browser to one process. Other tests go where there is time."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return "browser" if nodeid.startswith("tests/browser") else nodeid

    return Scheduling(config, log)


def pytest_collection_finish():
    """Compute with one thread in each of several test processes."""
    if "PYTEST_XDIST_WORKER" in os.environ and "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture
def make_spec(tmp_path):
    """A RunSpec of Image Classification's mini problem; keywords replace fields."""

    def make(workload="image_classification", overrides=None, **fields) -> RunSpec:
        given = {
            "problem": "mini", "level": Level.FREE, "seed": 0, "system": "testbox", "unranked": bool(overrides),
            "data": str(tmp_path / "data"), "output": str(tmp_path / "results"), **fields,
        }  # fmt: skip
        return resolve(str(workload), overrides=overrides or {}, **given)

    return make


@pytest.fixture
def hpcai500(capsys):
    """Run a command in this process. Return its exit code and its output."""

    def call(*argv: str) -> tuple[int, str, str]:
        code = main([str(arg) for arg in argv])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def hpcai500_process():
    """Run a command as its user does, in a separate process."""

    def call(*argv: str, **options) -> subprocess.CompletedProcess:
        env = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
        command = [sys.executable, "-m", "hpcai500.cli.main", *(str(arg) for arg in argv)]
        return subprocess.run(command, capture_output=True, text=True, env=env, timeout=240, check=False, **options)

    return call


@pytest.fixture
def small_disk(tmp_path):
    """Mount a file system of so many kilobytes; its folder."""
    mounted = []

    def mount(kilobytes: int) -> Path:
        folder = tmp_path / "small"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", folder]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"mounting a small file system needs root: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", folder], check=True)


@pytest.fixture
def write_run():
    """Write a run's files by hand: qualities and seconds as given, one epoch a second of training."""

    def write(
        spec: RunSpec, qualities, *, total_sec=10.0, flops_per_sample=1e9, stop="success", energy=None, waits=None
    ) -> Path:
        spec.write()
        num_samples = spec.steps_per_epoch * spec.settings.batch.global_batch_size
        lines = []

        def add(time_sec, event_type, key, value=None, **metadata):
            milliseconds = 1_700_000_000_000 + round(time_sec * 1_000)
            lines.append(
                format_line(key, event_type, value, metadata, time_ms=milliseconds, file="by_hand.py", lineno=1)
            )

        add(-3, Type.START, Key.INIT_START)
        add(-2, Type.POINT, Key.DATASET, {"synthetic": spec.is_synthetic, "digest": "d"})
        count = {"mean": flops_per_sample, "standard_deviation": 0.0, "num_batches": 1}
        add(-2, Type.POINT, Key.FLOPS_PER_SAMPLE, count, convention="by hand")
        sources = ["rapl"] if energy else []
        add(-1, Type.POINT, Key.ENERGY, {"sources": sources, "missing": [] if energy else ["RAPL: none"]})
        add(-0.5, Type.END, Key.INIT_STOP)
        add(0, Type.START, Key.RUN_START)
        step = total_sec / max(1, len(qualities))
        for epoch, quality in enumerate(qualities, start=1):
            add(epoch * step, Type.END, Key.EVAL_STOP, epoch_num=epoch)
            row = {
                "epoch_num": epoch, "train_loss": 1.0 / epoch, "quality": quality, "num_samples": num_samples,
                "flops": num_samples * flops_per_sample, "train_sec": step * 0.75, "eval_sec": step * 0.25,
                "learning_rate": 0.1, "energy_joules": energy,
            }  # fmt: skip
            if waits:
                row["data_wait_sec"] = waits[epoch - 1]
            add(epoch * step, Type.POINT, Key.EPOCH, row, epoch_num=epoch)
        if stop:
            add(total_sec, Type.END, Key.RUN_STOP, status=stop)
        (spec.folder / "events.log").write_text("\n".join(lines) + "\n")
        hardware = {"cpu_model": "Test CPU", "gpus": []}
        system = {"schema_version": 1, "nodes": [{"count": 1, "hosts": ["h"], "layers": {"1": hardware}}]}
        (spec.folder / "system.json").write_text(json.dumps(system))
        return spec.folder

    return write
