"""Settings that shorten the shipped workloads' mini problems, and the training figures in a run's log."""

import json
import os
from shutil import which

import pytest

from hpcai500.events.reader import find, read_events
from hpcai500.events.vocabulary import Key

SMALL = {
    "problem.num_train_samples": 40, "problem.num_eval_samples": 10, "problem.num_epochs": 2,
    "batch.global_batch_size": 16, "batch.micro_batch_size": 4, "optimizer.learning_rate": 0.01,
    "data.image_size": 16, "data.eval_resize": 16, "execution.num_flop_batches": 1,
}  # fmt: skip
FEW_FRAMES = {
    "data.train_years": [1979], "problem.num_train_samples": 4, "problem.num_eval_samples": 4,
    "problem.num_epochs": 2, "batch.micro_batch_size": 1, "execution.num_flop_batches": 1,
}  # fmt: skip

CXX = os.environ.get("CXX", "g++")
needs_compiler = pytest.mark.skipif(which(CXX) is None, reason=f"no {CXX}, with which torch compiles for a processor")


def assignments(overrides):
    """The settings as options of the command line."""
    return [word for key, value in overrides.items() for word in ("--set", f"{key}={json.dumps(value)}")]


def options(overrides):
    """The settings and `--unranked`, for a run that is never ranked."""
    return ["--unranked", *assignments(overrides)]


def losses(folder):
    return [event.value["train_loss"] for event in find(read_events(folder / "events.log"), Key.EPOCH)]
