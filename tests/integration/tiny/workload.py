"""A workload that trains in a moment, and fails on request."""

import contextlib
import json
import os
import signal
import time
from pathlib import Path

import torch
from torch import nn

from hpcai500.errors import DataError
from hpcai500.train.workload import DatasetInfo, Quality, Workload


class Tiny(Workload):
    def open_data(self, folder, ranks):
        self.rank = ranks.rank
        problem = self.settings.problem
        file = folder / "digest"
        digest = file.read_text() if file.exists() else "0" * 16
        return DatasetInfo(digest, problem.num_train_samples, problem.num_eval_samples)

    def build_model(self):
        return nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(),
            nn.Dropout(self.settings.model["dropout"]), nn.Linear(8 * 36, self.settings.model["num_classes"]),
        )  # fmt: skip

    def _sample(self, index):
        label = index % self.settings.model["num_classes"]
        noise = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(index))
        image = noise * self.settings.data["noise"]
        image[:, label] += 1.0
        return image, label

    def _batch(self, indices):
        images, labels = zip(*(self._sample(index) for index in indices), strict=True)
        return torch.stack(images), torch.tensor(labels)

    def train_batches(self, batches):
        for keys in batches:
            self._obey_files(keys[0].epoch)
            self._maybe_fail(keys[0].epoch)
            yield self._batch([key.sample for key in keys])

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

    def eval_batches(self, batches):
        for indices in batches:
            yield self._batch([index + 1_000 for index in indices])

    def synthetic_batch(self, num_samples, device, seed):
        generator = torch.Generator(device).manual_seed(seed)
        return torch.randn(num_samples, 3, 8, 8, device=device, generator=generator), torch.zeros(
            num_samples, dtype=torch.int64, device=device
        )

    def to_device(self, batch, device):
        return tuple(part.to(device) for part in batch)

    def loss(self, model, batch):
        return nn.functional.cross_entropy(model(batch[0]), batch[1])

    def start_evaluation(self):
        self.state = [0, 0]

    def evaluate(self, model, batch):
        self.state[0] += int((model(batch[0]).argmax(1) == batch[1]).sum())
        self.state[1] += len(batch[1])

    def evaluation_state(self):
        return self.state

    def quality(self, states):
        correct, total = (sum(column) for column in zip(*states, strict=True))
        return Quality(correct / total, {"num_samples": total})


WORKLOAD = Tiny
