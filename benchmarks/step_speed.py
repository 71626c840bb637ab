"""A run's step of ResNet-50 at 224 on this CPU, compared with the one in PyTorch's tutorials."""

import tempfile
from collections.abc import Callable
from functools import partial

import torch
from pairs import Row, paired
from torch import nn
from torchvision.models import resnet50
from trainers import train_steps, trainer_of, trial_spec

from hpcai500.ranks.torch_ranks import Ranks
from hpcai500.system.devices import native_precision

BATCH = 16


def rows(ranks: Ranks) -> list[Row]:
    if native_precision(on_gpus=False) != "bf16":
        print("step at 224: not measured, this processor has no bf16")
        return []
    with tempfile.TemporaryDirectory() as output:
        sizes = {"batch.global_batch_size": BATCH, "batch.micro_batch_size": BATCH}
        trainer = trainer_of(trial_spec("image_classification", "full", output, sizes), ranks)
        plain, ours, ratio = paired(plain_step(), partial(train_steps, trainer, 1))
    rates = [f"{BATCH / taken:.1f} images/s" for taken in (ours, plain)]
    what = "step at 224, batch 16: ours (bf16, channels last, fused) / plain PyTorch (fp32)"
    return [Row(what, *rates, ratio, ">= 2.3")]


def plain_step() -> Callable[[], None]:
    """A step in fp32 with images as N, C, H, W, not compiled, with torch's default optimiser."""
    torch.manual_seed(0)
    model = resnet50(zero_init_residual=True).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.875, weight_decay=2**-15)
    criterion = nn.CrossEntropyLoss(label_smoothing=0.1)
    images = torch.randint(256, (BATCH, 3, 224, 224), dtype=torch.uint8)
    labels = torch.randint(1_000, (BATCH,))
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1) * 255
    deviation = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1) * 255

    def step() -> None:
        loss = criterion(model((images - mean) / deviation), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step
