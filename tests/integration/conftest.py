"""Runs that several tests read, each trained once."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from forked_ranks import train
from PIL import Image
from short_runs import FEW_FRAMES, SMALL, options

from hpcai500.cli.main import main

TINY = Path(__file__).parent / "tiny"


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("busy")


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """Forty training and ten evaluation JPEGs in ten classes."""
    folder = tmp_path_factory.mktemp("digits")
    for split, count in (("train", 4), ("val", 1)):
        for label in range(10):
            (folder / split / f"digit_{label}").mkdir(parents=True)
            for number in range(count):
                image = Image.new("RGB", (32, 32), (25 * label, 60 * number, 100))
                image.save(folder / split / f"digit_{label}" / f"{number}.JPEG")
    return folder


@pytest.fixture(scope="session")
def real_digits(tmp_path_factory):
    """The mini problem's data set, as `prepare` writes it."""
    folder = tmp_path_factory.mktemp("real_digits") / "data"
    assert main(["data", "prepare", "image_classification", "--problem", "mini", "--data", str(folder)]) == 0
    return folder


@pytest.fixture(scope="session")
def weather(tmp_path_factory):
    """Four frames of the mini size, as `synthesize` writes them, to train and to evaluate on."""
    folder = tmp_path_factory.mktemp("weather")
    years = ("--set", "data.train_years=[1979]", "--samples", "4")
    assert main(["data", "synthesize", "extreme_weather", "--problem", "mini", "--data", str(folder), *years]) == 0
    return folder


@pytest.fixture(scope="session")
def short_run(digits, weather, tmp_path_factory):
    """The folder of a finished short run of a workload on some ranks, with further options of `run`."""
    folders: dict[tuple[str, ...], Path] = {}
    results, staged = tmp_path_factory.mktemp("results"), tmp_path_factory.mktemp("staged")
    overrides = {"image_classification": SMALL, "extreme_weather": FEW_FRAMES}
    places = {"image_classification": {"data": digits}, "extreme_weather": {"data": weather, "staging": str(staged)}}

    def launch(workload: str, ranks: int, output: Path, *arguments: str) -> Path:
        given = [word for name, place in places[workload].items() for word in (f"--{name}", place)]
        command = [
            sys.executable, "-m", "hpcai500.cli.main", "run", workload, "--problem", "mini", "--system", "box",
            "--output", output, "--procs-per-node", ranks, *options(overrides[workload]), *given, *arguments,
        ]  # fmt: skip
        words = [str(word) for word in command]
        done = subprocess.run(words, capture_output=True, text=True, timeout=240, check=False)
        assert done.returncode == 0, done.stderr
        return next(output.rglob("run.json")).parent

    def run(workload: str, ranks: int, *arguments: str) -> Path:
        key = (workload, str(ranks), *arguments)
        output = results / str(len(folders))
        if key not in folders and arguments:
            folders[key] = launch(workload, ranks, output, *arguments)
        elif key not in folders:
            folders[key] = train(
                workload, output, ranks=ranks, threads=1, overrides=overrides[workload], unranked=True,
                **places[workload],
            )  # fmt: skip
        return folders[key]

    return run


class Tiny:
    """One experiment of the tiny workload on two ranks, with its orders in the folder `data`."""

    arguments = ("--problem", "mini", "--system", "box", "--procs-per-node", "2", "--deterministic")
    settings = {"model.dropout": 0.5}  # noqa: RUF012

    def __init__(self, folder: Path):
        self.data, self.output = folder / "data", folder / "results"
        self.data.mkdir(parents=True)

    def command(self, *arguments, output=None) -> list[str]:
        places = ("--data", self.data, "--output", output or self.output)
        return [
            str(word) for word in ("run", TINY, *self.arguments, *options(self.settings)[1:], *places, *arguments)
        ]

    def start(self, *arguments, output=None) -> subprocess.Popen:
        command = [sys.executable, "-m", "hpcai500.cli.main", *self.command(*arguments, output=output)]
        env = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
        env["CUDA_VISIBLE_DEVICES"] = ""
        return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def run(self, *arguments, output=None) -> subprocess.CompletedProcess:
        process = self.start(*arguments, output=output)
        out, err = process.communicate(timeout=240)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def folder(self, output=None) -> Path:
        (path,) = (output or self.output).rglob("run.json")
        return path.parent


class Launched(NamedTuple):
    tiny: Tiny
    done: subprocess.CompletedProcess

    @property
    def folder(self) -> Path:
        return self.tiny.folder()


@pytest.fixture
def tiny(tmp_path):
    return Tiny(tmp_path / "tiny")


@pytest.fixture(scope="session")
def launched(tmp_path_factory) -> Launched:
    """The tiny experiment from beginning to end, as its user starts it. Tests must not change it."""
    tiny = Tiny(tmp_path_factory.mktemp("launched") / "tiny")
    (tiny.data / "cores").mkdir()
    return Launched(tiny, tiny.run())


@pytest.fixture(scope="session")
def _killed(tmp_path_factory) -> tuple[Launched, Path]:
    """The run of `killed`, and a copy of it."""
    folder = tmp_path_factory.mktemp("killed")
    tiny = Tiny(folder / "tiny")
    (tiny.data / "kill-rank-1-epoch-3").write_text("2")
    done = tiny.run()
    shutil.copytree(folder / "tiny", folder / "copy")
    return Launched(tiny, done), folder / "copy"


@pytest.fixture
def killed(_killed) -> Launched:
    """A run whose rank 1 was killed in the last epoch, when two checkpoints were written."""
    run, copy = _killed
    shutil.rmtree(run.tiny.data.parent)
    shutil.copytree(copy, run.tiny.data.parent)
    return run
