"""AIBench's twelve micro kernels, forward, in fp32, as torch executes them.

The selection is AIBench's (Gao et al. 2019). The sizes are ours: tensors larger than a usual CPU's caches.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch.nn import functional

from hpcai500.micro.kernels import Kernel, close, convolution, normal

Images = tuple[int, int, int, int]
"""Samples, channels, height, width."""

FAMILY = "aibench"
CPU_IMAGES: Images = (64, 64, 56, 56)
GPU_IMAGES: Images = (256, 64, 112, 112)
DROPOUT = 0.5
EPSILON = 1e-5


def twelve(*, on_gpu: bool) -> Iterator[Kernel]:
    images = GPU_IMAGES if on_gpu else CPU_IMAGES
    samples, features = (4096, 4096) if on_gpu else (256, 2048)
    yield convolution(images[0] if on_gpu else 16, images[1], images[2], "fp32", family=FAMILY)
    yield fully_connected(samples, features)
    yield from (activation(name, images) for name in ACTIVATIONS)
    yield pooling("max_pooling", images)
    yield pooling("average_pooling", images)
    yield cosine_normalisation(samples, features)
    yield batch_normalisation(images)
    yield dropout(images)
    yield multiply(images)
    yield softmax(images)


def _bandwidth(
    name: str,
    images: Images,
    make: Callable[[torch.Generator], Any],
    run: Callable[[Any], torch.Tensor],
    check: Callable[[Any, torch.Tensor], bool],
    *,
    tensors: float = 2.0,
) -> Kernel:
    """A kernel bound by memory, which reads or writes `tensors` tensors of the size of `images`."""
    return Kernel(
        name=f"{FAMILY}_{name}",
        family=FAMILY,
        title=f"{FAMILY} {name.replace('_', ' ')}",
        shape=" x ".join(map(str, images)),
        precision="fp32",
        measures="bytes",
        flops=0,
        bytes=round(images[0] * images[1] * images[2] * images[3] * 4 * tensors),
        make=make,
        run=run,
        check=check,
    )


ACTIVATIONS: dict[str, tuple[Callable[..., torch.Tensor], Callable[[torch.Tensor], torch.Tensor]]] = {
    "relu": (partial(torch.clamp_min, min=0), lambda x: (x + x.abs()) / 2),
    "sigmoid": (torch.sigmoid, lambda x: 1 / (1 + (-x).exp())),
    "tanh": (torch.tanh, lambda x: 1 - 2 / ((2 * x).exp() + 1)),
}
"""Each function as torch computes it, and by its definition."""


def activation(name: str, images: Images) -> Kernel:
    """An activation function, which writes to existing memory."""
    function, expected = ACTIVATIONS[name]

    def make(generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        inputs = normal(generator, images)
        return inputs, torch.zeros_like(inputs)

    def check(inputs: tuple[torch.Tensor, torch.Tensor], output: torch.Tensor) -> bool:
        return close(output[:1], expected(inputs[0][:1].double()), "fp32")

    return _bandwidth(name, images, make, lambda inputs: function(inputs[0], out=inputs[1]), check)


def pooling(name: str, images: Images) -> Kernel:
    """Pooling of 2 x 2 pixels without overlap, which writes a quarter of what it reads."""
    function = functional.max_pool2d if name == "max_pooling" else functional.avg_pool2d

    def check(inputs: torch.Tensor, output: torch.Tensor) -> bool:
        first = inputs[:1].double()
        corners = torch.stack([first[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)])
        return close(output[:1], corners.amax(0) if name == "max_pooling" else corners.mean(0), "fp32")

    return _bandwidth(
        name,
        images,
        lambda generator: normal(generator, images),
        lambda inputs: function(inputs, 2),
        check,
        tensors=1.25,
    )


def batch_normalisation(images: Images) -> Kernel:
    """Batch normalisation with the batch's own statistics, as in training, without scale and shift."""

    def run(inputs: torch.Tensor) -> torch.Tensor:
        return functional.batch_norm(inputs, None, None, training=True, eps=EPSILON)

    def check(inputs: torch.Tensor, output: torch.Tensor) -> bool:
        channel = inputs[:, 0].double()
        expected = (channel - channel.mean()) / (channel.var(correction=0) + EPSILON).sqrt()
        return close(output[:, 0], expected, "fp32")

    return _bandwidth("batch_normalisation", images, lambda generator: normal(generator, images), run, check)


def dropout(images: Images) -> Kernel:
    """Dropout of about half of the values; the others are doubled."""

    def run(inputs: torch.Tensor) -> torch.Tensor:
        return functional.dropout(inputs, DROPOUT)

    def check(inputs: torch.Tensor, output: torch.Tensor) -> bool:
        sample = output[:1]
        kept = sample != 0
        doubled = torch.equal(sample, inputs[:1] / (1 - DROPOUT) * kept)
        # six standard deviations of a share of one half
        return doubled and abs(kept.double().mean().item() - (1 - DROPOUT)) < 3 / kept.numel() ** 0.5

    return _bandwidth("dropout", images, lambda generator: normal(generator, images), run, check)


def multiply(images: Images) -> Kernel:
    def make(generator: torch.Generator) -> torch.Tensor:
        return normal(generator, (3, *images))

    def check(inputs: torch.Tensor, output: torch.Tensor) -> bool:
        first, second, _ = inputs[:, :1].double()
        return close(output[:1], first * second, "fp32")

    def run(inputs: torch.Tensor) -> torch.Tensor:
        return torch.mul(inputs[0], inputs[1], out=inputs[2])

    return _bandwidth("multiply", images, make, run, check, tensors=3.0)


def softmax(images: Images) -> Kernel:
    """Softmax over the last two dimensions together: `height * width` classes."""
    rows = (images[0] * images[1], images[2] * images[3])

    def make(generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        inputs = normal(generator, rows)
        return inputs, torch.zeros_like(inputs)

    def run(inputs: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return torch.softmax(inputs[0], dim=1, out=inputs[1])

    def check(inputs: tuple[torch.Tensor, torch.Tensor], output: torch.Tensor) -> bool:
        exponents = inputs[0][:16].double().exp()
        return close(output[:16], exponents / exponents.sum(dim=1, keepdim=True), "fp32")

    return _bandwidth("softmax", images, make, run, check)


Product = tuple[torch.Tensor, torch.Tensor]
"""Samples (n, features) and weights (features, features)."""


def _product(
    name: str, num_samples: int, num_features: int, run: Callable[[Product], torch.Tensor],
    expected: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
) -> Kernel:  # fmt: skip
    """A kernel with `2 * samples * features^2` FLOPs."""

    def make(generator: torch.Generator) -> Product:
        return normal(generator, (num_samples, num_features)), normal(generator, (num_features, num_features))

    def check(inputs: Product, output: torch.Tensor) -> bool:
        samples, weights = inputs
        return close(output[:4], expected(samples[:4].double(), weights.double()), "fp32")

    return Kernel(
        name=f"{FAMILY}_{name}",
        family=FAMILY,
        title=f"{FAMILY} {name.replace('_', ' ')}",
        shape=f"{num_samples} x {num_features} to {num_features}",
        precision="fp32",
        measures="flops",
        flops=2 * num_samples * num_features**2,
        bytes=4 * (2 * num_samples * num_features + num_features**2),
        make=make,
        run=run,
        check=check,
    )


def fully_connected(num_samples: int, num_features: int) -> Kernel:
    return _product(
        "fully_connected", num_samples, num_features,
        lambda inputs: functional.linear(*inputs), lambda samples, weights: samples @ weights.T,
    )  # fmt: skip


def cosine_normalisation(num_samples: int, num_features: int) -> Kernel:
    """The cosine of sample and weights in place of their product (Luo et al. 2017). FLOPs are the product's."""

    def expected(samples: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        lengths = samples.square().sum(1, keepdim=True).sqrt() * weights.square().sum(1).sqrt()
        return (samples @ weights.T) / lengths

    return _product(
        "cosine_normalisation", num_samples, num_features,
        lambda inputs: functional.linear(functional.normalize(inputs[0]), functional.normalize(inputs[1])), expected,
    )  # fmt: skip
