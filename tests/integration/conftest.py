"""Short runs of the shipped workloads' mini problems, each trained once for all tests that look at it."""

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from short_runs import FEW_FRAMES, SMALL


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
def weather(tmp_path_factory):
    """Eight training and four evaluation frames of the mini size, as `synthesize` writes them."""
    folder = tmp_path_factory.mktemp("weather")
    action = ("data", "synthesize", "extreme_weather", "--problem", "mini")
    command = [sys.executable, "-m", "hpcai500.cli.main", *action]
    years = ("--set", "data.train_years=[1979]")
    subprocess.run([*command, *years, "--data", str(folder), "--samples", "8"], check=True, capture_output=True)
    return folder


@pytest.fixture(scope="session")
def short_run(digits, weather, tmp_path_factory):
    """The folder of a finished short run of a workload on so many ranks."""
    folders: dict[tuple[str, ...], Path] = {}
    results, staged = tmp_path_factory.mktemp("results"), tmp_path_factory.mktemp("staged")
    given = {
        "image_classification": (*SMALL, "--data", digits),
        "extreme_weather": (*FEW_FRAMES, "--data", weather, "--staging", staged),
    }

    def run(workload: str, ranks: int, *arguments: str) -> Path:
        key = (workload, str(ranks), *arguments)
        if key not in folders:
            output = results / str(len(folders))
            command = [
                sys.executable, "-m", "hpcai500.cli.main", "run", workload, "--problem", "mini", "--system", "box",
                "--output", output, "--procs-per-node", ranks, *given[workload], *arguments,
            ]  # fmt: skip
            words = [str(word) for word in command]
            done = subprocess.run(words, capture_output=True, text=True, timeout=240, check=False)
            assert done.returncode == 0, done.stderr
            folders[key] = next(output.rglob("run.json")).parent
        return folders[key]

    return run
