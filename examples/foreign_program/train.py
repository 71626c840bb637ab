"""A program independent of hpcai500: a small network on the handwritten digits, with its own log.

`python train.py DATA --seed 0`: DATA is the folder that `hpcai500 data prepare` makes for the mini problem.
"""

import argparse
import hashlib
import json
import platform
import struct
import time
from itertools import pairwise
from pathlib import Path

import numpy
import torch
from PIL import Image
from torch import nn

TARGET, EPOCHS, BATCH, RATE, WARM_UP_EPOCHS, DECAY = 0.85, 4, 64, 0.004, 0.5, 0.01
WIDTHS = (3, 32, 64, 128)


def log(event_type, key, value=None, **metadata):
    """Print one line and flush it: `ingest --run` compares its time with its own clock."""
    record = {"namespace": "", "time_ms": time.time_ns() // 1_000_000, "event_type": event_type, "key": key,
              "value": value, "metadata": {"file": "train.py", "lineno": 0, **metadata}}  # fmt: skip
    print(f":::MLLOG {json.dumps(record)}", flush=True)


def point(key, value, **metadata):
    log("POINT_IN_TIME", key, value, **metadata)


def read_split(folder):
    """Images, labels, and the digest of the split: SHA-256 of the names, where each ends, and the labels."""
    classes = sorted(path.name for path in folder.iterdir())
    names = [f"{name}/{path.name}" for name in classes for path in sorted((folder / name).iterdir())]
    labels = [classes.index(name.split("/")[0]) for name in names]
    text = b"".join(name.encode() for name in names)
    ends = numpy.cumsum([len(name.encode()) for name in names])
    digest = hashlib.sha256(text + struct.pack(f"<{len(ends)}q", *ends) + struct.pack(f"<{len(labels)}h", *labels))
    pixels = [numpy.asarray(Image.open(folder / name).convert("RGB")) for name in names]
    images = torch.tensor(numpy.stack(pixels)).permute(0, 3, 1, 2).float() / 127.5 - 1
    return images, torch.tensor(labels), digest.hexdigest()[:16]


def build_model():
    """Three convolutions that halve the image and a linear layer, with their forward FLOPs (MAC = 2)."""
    layers, flops, size = [], {}, 32
    for number, (inputs, outputs) in enumerate(pairwise(WIDTHS)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
        layers.append(nn.MaxPool2d(2))
        flops[f"conv{number}"] = 2 * 9 * inputs * outputs * size * size
        size //= 2
    layers += [nn.Flatten(), nn.Linear(WIDTHS[-1] * size * size, 10)]
    flops["linear"] = 2 * WIDTHS[-1] * size * size * 10
    return nn.Sequential(*layers), flops


def train_epoch(model, optimizer, images, labels, epoch):
    """Train on whole batches in random order; returns the mean loss and the number of samples."""
    model.train()
    total, steps = 0.0, len(images) // BATCH
    for step, chosen in enumerate(torch.randperm(len(images))[: steps * BATCH].split(BATCH)):
        done = (epoch - 1) + step / steps
        optimizer.param_groups[0]["lr"] = RATE * min(1.0, (done + 1 / steps) / WARM_UP_EPOCHS, 1.1 - done / EPOCHS)
        loss = nn.functional.cross_entropy(model(images[chosen]), labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item()
    return total / steps, steps * BATCH


def log_submission(system):
    for key, value in {"org": "me", "platform": system, "division": "open", "benchmark": "resnet",
                       "status": "research"}.items():  # fmt: skip
        point(f"submission_{key}", value)


def log_model(model, flops):
    """Parameters and FLOPs; returns the FLOPs to train one sample."""
    parameters = sum(parameter.numel() for parameter in model.parameters())
    point("hpcai500.model", {"num_parameters": parameters, "layer_flops": flops})
    # The backward pass takes twice the forward's; the gradient of the first layer's input is not needed.
    per_sample = 3 * sum(flops.values()) - flops["conv0"]
    convention = "convolutions and matrix products as executed, forward and backward, MAC = 2"
    point("hpcai500.flops_per_sample", {"mean": per_sample, "standard_deviation": 0.0}, convention=convention)
    return per_sample


def log_layers(seed):
    """Hyper-parameters by their official keys, and what Layers 1 to 9 are."""
    point("seed", seed)
    point("global_batch_size", BATCH)
    for key, value in {"name": "adamw", "base_learning_rate": RATE, "learning_rate_warmup_epochs": WARM_UP_EPOCHS,
                       "weight_decay": DECAY}.items():  # fmt: skip
        point(f"opt_{key}", value)
    for layer, value in {
        1: {"cpu_model": platform.processor() or platform.machine()},
        2: {"kernel": platform.release()},
        3: {"none": "one process"},
        4: {"torch_threads": torch.get_num_threads(), "mkldnn": torch.backends.mkldnn.is_available()},
        5: {"torch": torch.__version__, "python": platform.python_version()},
        6: {"world_size": 1, "precision": "fp32", "device": "cpu", "program": "plain loop, no compilation"},
        7: {"model": "three convolutions", "augmentation": "none"},
        8: {"schedule": "linear warm-up, then linear decay to a tenth"},
        9: {"metric": "top-1 accuracy", "target_quality": TARGET, "num_epochs": EPOCHS},
    }.items():
        point("hpcai500.layer", value, layer=layer)


def run_epoch(model, optimizer, train, evaluation, epoch, per_sample):
    """Train and evaluate once; `train` and `evaluation` are (images, labels)."""
    begun = time.perf_counter()
    log("INTERVAL_START", "epoch_start", epoch_num=epoch)
    loss, samples = train_epoch(model, optimizer, *train, epoch)
    log("INTERVAL_END", "epoch_stop", epoch_num=epoch)
    trained = time.perf_counter()
    log("INTERVAL_START", "eval_start", epoch_num=epoch)
    model.eval()
    images, labels = evaluation
    with torch.no_grad():
        quality = (model(images).argmax(1) == labels).sum().item() / len(labels)
    point("eval_accuracy", quality, epoch_num=epoch)
    log("INTERVAL_END", "eval_stop", epoch_num=epoch)
    point("hpcai500.epoch", {
        "epoch_num": epoch, "train_loss": loss, "quality": quality, "num_samples": samples,
        "flops": samples * per_sample, "train_sec": trained - begun, "eval_sec": time.perf_counter() - trained,
        "learning_rate": optimizer.param_groups[0]["lr"], "energy_joules": None,
    }, epoch_num=epoch, num_samples=len(labels))  # fmt: skip


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--system", default="my-machine")
    args = parser.parse_args()
    torch.manual_seed(args.seed)

    point("cache_clear", False)
    log("INTERVAL_START", "init_start")
    log_submission(args.system)
    model, flops = build_model()
    per_sample = log_model(model, flops)
    log_layers(args.seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=DECAY)
    log("INTERVAL_END", "init_stop")

    log("INTERVAL_START", "run_start")
    *train, train_digest = read_split(args.data / "train")
    *evaluation, eval_digest = read_split(args.data / "val")
    point("hpcai500.dataset", {"digest": f"{train_digest}-{eval_digest}"})
    point("train_samples", len(train[0]))
    point("eval_samples", len(evaluation[0]))
    for epoch in range(1, EPOCHS + 1):
        run_epoch(model, optimizer, train, evaluation, epoch, per_sample)
    log("INTERVAL_END", "run_stop", status="success")


if __name__ == "__main__":
    main()
