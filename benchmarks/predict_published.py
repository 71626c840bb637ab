"""Predicted against published scaling: one row calibrates, every other is predicted, and the error is printed.

Two constants of the model are not published: the share of the links' line rate that gradients get, and the variation
of the ranks' step times. Each is fitted in turn to one published efficiency, while the other has its ideal value. All
other values come from the source named next to them.
"""

import math
from typing import NamedTuple

import torch
import torchvision
from layers import layers_of

from hpcai500.predict.calibration import Step, bisect
from hpcai500.predict.communication import Link, Network, gradients
from hpcai500.predict.step_model import slowest_of

GBIT = 1e9 / 8
LATENCY_SEC = 5e-6
WITHIN_BYTES_PER_SEC = 10e9
"""Assumed: PCIe 3.0 x16 minus its protocol. NVLink would be faster, but no row below depends on it."""


class Row(NamedTuple):
    name: str
    model: str
    image_size: int
    samples_per_sec: float
    """Throughput of one single accelerator."""
    batch: int
    nodes: int
    per_node: int
    gbit: float
    """Line rate of a node's links."""
    backend: str
    wire_bytes: float
    efficiency: float
    overlaps: bool
    base_ranks: int
    """Number of nodes to which the efficiency is relative."""
    source: str


HOROVOD = "Horovod docs, benchmarks; P100 rates: TensorFlow benchmarks, May 2017"
# ResNet-101: 1,656.82 images/s on 16 GPUs in Horovod's docs, the figure nearest to that of one GPU.
ROWS = (
    Row("Horovod VGG-16", "vgg16", 224, 154, 64, 32, 4, 25, "horovod", 1, 0.79, True, 1, HOROVOD),
    Row("Horovod VGG-16", "vgg16", 224, 154, 64, 128, 4, 25, "horovod", 1, 0.68, True, 1, HOROVOD),
    Row("Horovod ResNet-101", "resnet101", 224, 1656.82 / 16, 64, 32, 4, 25, "horovod", 1, 0.90, True, 1, HOROVOD),
    Row("Horovod ResNet-101", "resnet101", 224, 1656.82 / 16, 64, 128, 4, 25, "horovod", 1, 0.90, True, 1, HOROVOD),
    Row("Horovod Inception V3", "inception_v3", 299, 142, 64, 32, 4, 25, "horovod", 1, 0.90, True, 1, HOROVOD),
    Row("Horovod Inception V3", "inception_v3", 299, 142, 64, 128, 4, 25, "horovod", 1, 0.90, True, 1, HOROVOD),
    Row("Goyal ResNet-50", "resnet50", 224, 32 / 0.18, 32, 32, 8, 50, "torch", 1, 0.90, True, 8,
        "arXiv:1706.02677: backward pass of 32 images 120 ms on a P100; 90 % from 8 to 256 GPUs"),
    Row("Akiba ResNet-50", "resnet50", 224, 195, 32, 128, 8, 2 * 56, "horovod", 0.5, 0.80, False, 1,
        "arXiv:1711.04325: 128 nodes of 8 P100, 2 FDR, fp16, no overlap, from memory; P100 at 32 images: TensorFlow"),
    Row("Sony ResNet-50", "resnet50", 224, 1200, 32, 272, 4, 2 * 100, "horovod", 0.5, 0.916, True, 4,
        "arXiv:1811.05233: ABCI, 4 V100 and 2 EDR a node, fp16, from memory; V100: 1,200 of 1,200 to 1,490"),
    Row("Kurth DeepLabv3+", "", 0, 2.67, 2, 4560, 6, 2 * 100, "horovod", 0.5, 0.907, True, 6,
        "arXiv:1810.01993: Summit, 6 V100 and 2 EDR a node, fp16, 2.67 samples/s, 44 M parameters, from memory"),
)  # fmt: skip
CALIBRATING_RATE, CALIBRATING_SPREAD = ROWS[0], ROWS[2]


def step_of(row: Row) -> Step:
    layers = [(0.44e6, 1.0)] * 100
    if row.model:
        with torch.device("meta"):
            options = {"aux_logits": False, "init_weights": False} if row.model == "inception_v3" else {}
            layers = layers_of(getattr(torchvision.models, row.model)(**options), row.image_size)
    grads = gradients(layers)
    if not row.overlaps:
        grads = [grad._replace(ready=1.0) for grad in grads]
    return Step(row.batch / row.samples_per_sec, row.batch, 1, tuple(grads), row.backend, row.wire_bytes)


def efficiency(row: Row, step: Step, share: float, spread: float) -> float:
    """The predicted efficiency at `share` of the line rate, if the ranks' step times vary by `spread`."""
    between = Link(latency_sec=LATENCY_SEC, bytes_per_sec=share * row.gbit * GBIT)
    within = Link(latency_sec=LATENCY_SEC, bytes_per_sec=WITHIN_BYTES_PER_SEC)
    exposed = step.sync(row.nodes, row.per_node, Network(between=between, within=within)).exposed_sec
    slowest = slowest_of(row.nodes * row.per_node) - slowest_of(row.base_ranks)
    return 1 / (1 + spread * slowest + exposed / step.compute_sec)


def main() -> None:
    steps = [step_of(row) for row in ROWS]
    by_rate, by_spread = ROWS.index(CALIBRATING_RATE), ROWS.index(CALIBRATING_SPREAD)
    share = bisect(
        lambda share: efficiency(CALIBRATING_RATE, steps[by_rate], share, 0.0), CALIBRATING_RATE.efficiency, 0.01, 1.0
    )
    spread = bisect(
        lambda spread: -efficiency(CALIBRATING_SPREAD, steps[by_spread], 1.0, spread),
        -CALIBRATING_SPREAD.efficiency, 1e-6, 1.0,
    )  # fmt: skip
    print(f"A: {share:.0%} of line rate, from {CALIBRATING_RATE.name}, 128 GPUs; ranks do not vary")
    print(f"B: step times vary by {spread:.2%}, from {CALIBRATING_SPREAD.name}, 128 GPUs; line rate\n")
    print("| row | GPUs | published | A | error | B | error |\n|---|---:|---:|---:|---:|---:|---:|")
    errors: tuple[list[float], list[float]] = ([], [])
    for number, (row, step) in enumerate(zip(ROWS, steps, strict=True)):
        cells = []
        for column, (found, calibrating) in enumerate([
            (efficiency(row, step, share, 0.0), by_rate), (efficiency(row, step, 1.0, spread), by_spread)
        ]):  # fmt: skip
            error = found / row.efficiency - 1
            if number != calibrating:
                errors[column].append(error)
            cells += [f"{found:.1%}", "calibrated" if number == calibrating else f"{error:+.1%}"]
        print(f"| {row.name} | {row.nodes * row.per_node:,} | {row.efficiency:.1%} | {' | '.join(cells)} |")
    means = [math.sqrt(sum(error**2 for error in column) / len(column)) for column in errors]
    print(f"\nRoot mean square of the errors but for the calibrated row: A {means[0]:.1%}, B {means[1]:.1%}\n")
    print("Sources:")
    for source in dict.fromkeys(row.source for row in ROWS):
        print(f"- {source}")


if __name__ == "__main__":
    main()
