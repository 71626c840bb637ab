"""The tiny workload of the examples, which fails on request."""

import contextlib
import json
import os
import signal
import time
from pathlib import Path

import torch

from hpcai500.errors import DataError
from hpcai500.train.workload import DatasetInfo

from .example import TinyWorkload, draw


class Tiny(TinyWorkload):
    """Draws its images instead of reading them, so that a test's data folder holds nothing but orders."""

    static_shapes = False

    def open_data(self, folder, ranks):
        self.rank = ranks.rank
        problem = self.settings.problem
        file = folder / "digest"
        digest = file.read_text() if file.exists() else "0" * 16
        return DatasetInfo(digest, problem.num_train_samples, problem.num_eval_samples)

    def _batch(self, indices):
        images, labels = zip(*(draw(self.settings, index) for index in indices), strict=True)
        return torch.stack(images), torch.tensor(labels)

    def train_batches(self, batches):
        for keys in batches:
            self._obey_files(keys[0].epoch)
            self._maybe_fail(keys[0].epoch)
            yield self._batch([key.sample for key in keys])

    def eval_batches(self, batches):
        for indices in batches:
            yield self._batch([index + 1_000 for index in indices])

    def _obey_files(self, epoch):
        """Obey the orders of a test: files in the data folder, so that they change no digest."""
        folder = Path(self.spec.data)
        with contextlib.suppress(FileNotFoundError):
            time.sleep(float((folder / "slow").read_text() or 0.1))
        if (folder / "cores").exists():
            (folder / "cores" / str(self.rank)).write_text(
                json.dumps([torch.get_num_threads(), sorted(os.sched_getaffinity(0))])
            )
        if self.rank == 1 and (folder / "hog").exists():
            self.hog = bytearray(6_000_000_000)
        order = folder / f"kill-rank-{self.rank}-epoch-{epoch}"
        if order.exists():
            self._wait_for_checkpoints(int(order.read_text() or 0))
            order.unlink()
            os.kill(os.getpid(), signal.SIGKILL)

    def _wait_for_checkpoints(self, count):
        """Wait for checkpoints, which are written in the background and may be late on a busy machine."""
        deadline = time.monotonic() + 60
        while len(list(self.spec.folder.glob("checkpoint/*.pt"))) < count and time.monotonic() < deadline:
            time.sleep(0.05)

    def _maybe_fail(self, epoch):
        if self.rank != self.settings.model["fail_on_rank"] or epoch < 2:
            return
        match self.settings.model["fail_how"]:
            case "raise":
                raise DataError("file 17: broken", "replace it")
            case "bug":
                raise RuntimeError("a bug")
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "hang":
                time.sleep(600)


WORKLOAD = Tiny
