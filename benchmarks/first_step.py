"""Time from the command to the end of the first training step, compared with a plain DDP script."""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pairs import Row, ratio

from hpcai500.events.reader import first, read_events
from hpcai500.events.vocabulary import Key

NUM_TURNS = 7
BATCH = 64
NUM_EVAL = 16
_TIMEOUT_SEC = 120

PLAIN_SCRIPT = """
import os, sys, time
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler
from torchvision import transforms
from torchvision.datasets import ImageFolder
from torchvision.models import resnet50

data, seen = sys.argv[1:]
for name, value in dict(RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT="29517").items():
    os.environ.setdefault(name, value)
dist.init_process_group("gloo")
torch.manual_seed(0)
transform = transforms.Compose([
    transforms.RandomResizedCrop(32, scale=(0.85, 1.0), ratio=(0.9, 1.11)),
    transforms.ToTensor(),
    transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
])
dataset = ImageFolder(os.path.join(data, "train"), transform)
sampler = DistributedSampler(dataset, seed=0)
loader = DataLoader(dataset, 64 // dist.get_world_size(), sampler=sampler, num_workers=1, drop_last=True)
model = DistributedDataParallel(resnet50(num_classes=10, zero_init_residual=True))
criterion = torch.nn.CrossEntropyLoss(label_smoothing=0.1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.03, momentum=0.875, weight_decay=3.0517578125e-5)
for epoch in range(1):
    sampler.set_epoch(epoch)
    for images, labels in loader:
        loss = criterion(model(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if dist.get_rank() == 0:
            with open(seen, "w") as file:
                file.write(str(time.time()))
dist.destroy_process_group()
"""


def rows() -> list[Row]:
    """Rows of bench.py's table, with one rank and with two."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "plain.py").write_text(PLAIN_SCRIPT)
        one_step_of_digits(folder / "digits", folder / "data")
        return [first_step(folder, ranks) for ranks in (1, 2)]


def one_step_of_digits(digits: Path, data: Path) -> None:
    """The mini problem's data set, cut to one global batch, so that an epoch is one step."""
    prepare = ("data", "prepare", "image_classification", "--problem", "mini", "--data", str(digits))
    subprocess.run(command(*prepare), check=True, stdout=subprocess.DEVNULL)
    for split, number in (("train", BATCH), ("val", NUM_EVAL)):
        for label in sorted(path.name for path in (digits / split).iterdir()):
            (data / split / label).mkdir(parents=True)
        for image in sorted((digits / split).glob("*/*"), key=lambda path: (path.name, path.parent.name))[:number]:
            shutil.copy(image, data / split / image.parent.name / image.name)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "hpcai500.cli.main", *arguments]


def first_step(folder: Path, ranks: int) -> Row:
    times = []
    for turn in range(NUM_TURNS + 1):
        measures = (ours, plain) if turn % 2 else (plain, ours)
        taken = {measure: measure(folder, ranks) for measure in measures}
        times.append((taken[ours], taken[plain]))
    times = times[1:]  # the first round fills caches
    medians = [f"{statistics.median(column):.2f} s" for column in zip(*times, strict=True)]
    how = "python script.py" if ranks == 1 else f"torchrun --nproc-per-node {ranks} script.py"
    return Row(f"command to first step, {ranks} rank(s): hpcai500 run / {how}", *medians, ratio(times), "<= 1.3")


def ours(folder: Path, ranks: int) -> float:
    """Seconds from the command to `epoch_stop` of an epoch of one step."""
    results = folder / "results"
    shutil.rmtree(results, ignore_errors=True)
    sizes = {"num_train_samples": BATCH, "num_eval_samples": NUM_EVAL, "num_epochs": 1}
    settings = [part for name, value in sizes.items() for part in ("--set", f"problem.{name}={value}")]
    argv = command(
        "run", "image_classification", "--problem", "mini", "--unranked", "--data", str(folder / "data"),
        "--output", str(results), "--procs-per-node", str(ranks), *settings,
    )  # fmt: skip
    started = time.time()
    subprocess.run(argv, check=True, capture_output=True, timeout=_TIMEOUT_SEC)
    (log,) = results.rglob("events.log")
    event = first(read_events(log), Key.EPOCH_STOP)
    assert event is not None
    return event.time_ms / 1_000 - started


def plain(folder: Path, ranks: int) -> float:
    seen = folder / "seen"
    starter = ["-m", "torch.distributed.run", "--nproc-per-node", str(ranks)] if ranks > 1 else []
    started = time.time()
    argv = [sys.executable, *starter, str(folder / "plain.py"), str(folder / "data"), str(seen)]
    subprocess.run(argv, check=True, capture_output=True, timeout=_TIMEOUT_SEC, env=dict(os.environ))
    return float(seen.read_text()) - started


if __name__ == "__main__":
    for row in rows():
        print(*row, sep=" | ")
