"""Each kernel compared with NumPy or SciPy, and its FLOPs and bytes with a count by hand."""

import time

import numpy as np
import pytest
import torch
from scipy import signal, special

from hpcai500.micro import aibench
from hpcai500.micro.compute import measure_compute, measure_kernel, measure_kernels, standard_kernels
from hpcai500.micro.kernels import close, convolution, copy, gemm
from hpcai500.micro.timing import repeat

CPU = torch.device("cpu")
SMALL = (2, 3, 4, 6)


def run(kernel):
    """Operands and result of a kernel as NumPy arrays in float64, which its own check must accept."""
    inputs = kernel.make(torch.Generator().manual_seed(1))
    output = kernel.run(inputs)
    assert kernel.check(inputs, output)
    assert not kernel.check(inputs, output + 1)
    operands = inputs if isinstance(inputs, tuple | list) else [inputs]
    return [each.double().numpy() for each in operands], output.double().numpy()


def assert_close(found, expected, tolerance=1e-5):
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


def convolved(images, weights):
    """ "Same" cross-correlation of every image with every filter, by SciPy."""
    return np.array(
        [[sum(signal.correlate2d(i, w, mode="same") for i, w in zip(image, one, strict=True)) for one in weights]
         for image in images]
    )  # fmt: skip


@pytest.mark.parametrize(
    ("precision", "itemsize", "tolerance"), [("fp64", 8, 1e-12), ("fp32", 4, 1e-4), ("bf16", 2, 0.3)]
)
def test_gemm_is_numpys_product_of_2_n_cubed_flops_and_three_matrices(precision, itemsize, tolerance):
    kernel = gemm(32, precision)
    (left, right, _), output = run(kernel)
    assert_close(output, left @ right, tolerance)
    assert (kernel.flops, kernel.bytes) == (2 * 32 * 32 * 32, 3 * 32 * 32 * itemsize)


def test_a_convolution_is_scipys_cross_correlation_of_18_flops_a_channel_pair_and_pixel():
    kernel = convolution(2, 3, 5, "fp32")
    (images, weights), output = run(kernel)
    assert_close(output, convolved(images, weights), 1e-4)
    pixels = 2 * 5 * 5
    assert kernel.flops == 18 * 3 * 3 * pixels
    assert kernel.bytes == 4 * (2 * 3 * pixels + 3 * 3 * 9)


def test_a_copy_counts_what_is_read_and_what_is_written():
    kernel = copy(1 << 16)
    (source, _), output = run(kernel)
    assert np.array_equal(source, output)
    assert kernel.bytes == 2 * 65_536
    assert len(np.unique(source)) > 10_000


def batch_normalised(x):
    axes = (0, 2, 3)
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + 1e-5)


def cosines(x, w):
    return x @ w.T / np.outer(np.linalg.norm(x, axis=1), np.linalg.norm(w, axis=1))


def blocks(x):
    """(2, 3, 2, 3, 4): the four values of each 2 x 2 block."""
    return x.reshape(2, 3, 2, 2, 3, 2).transpose(0, 1, 2, 4, 3, 5).reshape(2, 3, 2, 3, 4)


ELEMENTS = 2 * 3 * 4 * 6
SIMPLE = {
    "convolution": (lambda: convolution(2, 3, 5, "fp32", family="aibench"), convolved, 18 * 9 * 50),
    "fully_connected": (lambda: aibench.fully_connected(5, 7), lambda x, w: x @ w.T, 2 * 5 * 7 * 7),
    "cosine_normalisation": (lambda: aibench.cosine_normalisation(5, 7), cosines, 2 * 5 * 7 * 7),
    "max_pooling": (lambda: aibench.pooling("max_pooling", SMALL), lambda x: blocks(x).max(-1), 5 * ELEMENTS),
    "average_pooling": (
        lambda: aibench.pooling("average_pooling", SMALL),
        lambda x: blocks(x).mean(-1),
        5 * ELEMENTS,
    ),
    "batch_normalisation": (lambda: aibench.batch_normalisation(SMALL), batch_normalised, 8 * ELEMENTS),
    "multiply": (lambda: aibench.multiply(SMALL), lambda x: x[0] * x[1], 12 * ELEMENTS),
    "softmax": (lambda: aibench.softmax(SMALL), lambda x, _: special.softmax(x, axis=1), 8 * ELEMENTS),
}
ACTIVATIONS = {"relu": lambda x: np.maximum(x, 0), "sigmoid": special.expit, "tanh": np.tanh}


@pytest.mark.parametrize("name", SIMPLE)
def test_an_aibench_kernel_is_what_numpy_or_scipy_computes(name):
    make, expected, amount = SIMPLE[name]
    kernel = make()
    operands, output = run(kernel)
    assert_close(output, expected(*operands), 1e-4)
    assert (kernel.flops if kernel.measures == "flops" else kernel.bytes) == amount
    assert kernel.name == f"aibench_{name}"


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_aibench_activation_is_what_numpy_computes(name):
    kernel = aibench.activation(name, SMALL)
    (inputs, _), output = run(kernel)
    assert_close(output, ACTIVATIONS[name](inputs))
    assert kernel.bytes == 8 * ELEMENTS  # float32, read and written


def test_dropout_keeps_about_half_and_doubles_it():
    kernel = aibench.dropout((4, 8, 32, 32))
    inputs = kernel.make(torch.Generator().manual_seed(1))
    output = kernel.run(inputs)
    assert kernel.check(inputs, output)
    kept = output != 0
    assert torch.equal(output[kept], 2 * inputs[kept])
    assert abs(kept.double().mean().item() - 0.5) < 0.02  # 32,768 draws: seven standard deviations
    assert not kernel.check(inputs, inputs)


def test_aibenchs_kernels_are_twelve():
    names = [kernel.name.removeprefix("aibench_") for kernel in aibench.twelve(on_gpu=False)]
    assert sorted(names) == sorted([*SIMPLE, *ACTIVATIONS, "dropout"])
    assert len(set(names)) == 12


def test_every_metric_has_a_name_of_its_own():
    metrics = [kernel.metric for kernel in standard_kernels(CPU, ("fp64", "fp32", "bf16", "fp16"))]
    assert len(set(metrics)) == len(metrics)


def test_a_kernel_that_computes_something_else_is_measured_as_wrong():
    def broken(inputs):
        output = torch.mm(inputs[0], inputs[1])
        output[7, 3] += 1.0
        return output

    right = measure_kernel(gemm(64, "fp32"), CPU, 0.0)
    wrong = measure_kernel(gemm(64, "fp32")._replace(run=broken), CPU, 0.0)
    assert (right.correct, wrong.correct) == (True, False)
    assert wrong.detail.endswith("the result is wrong")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_value_that_is_not_finite_is_wrong(value):
    expected = torch.ones(4)
    assert close(expected, expected, "fp64")
    assert not close(torch.tensor([1.0, 1.0, value, 1.0]), expected, "bf16")


def test_what_would_take_too_long_or_is_unknown_to_the_device_is_listed_with_its_reason():
    slow = gemm(32, "fp32")._replace(flops=10**18, probes=(gemm(16, "fp32"),))
    found = measure_kernels([slow], CPU, 1.0)
    assert not found.samples
    assert found.skipped[0].reason == "one call would take more than 1 s on this device"
    found = measure_compute("cpu", budget_sec=0.1, precisions=("tf32",), names=("gemm",))
    assert [(s.name, s.reason) for s in found.skipped] == [("gemm tf32", "a processor has no TF32")]


def after(pause, kernel):
    """`kernel`, which first does `pause`."""

    def run(inputs):
        pause()
        return gemm(16, "fp32").run(inputs)

    return kernel._replace(run=run)


def burn():
    until = time.thread_time() + 0.01
    while time.thread_time() < until:
        pass


def test_a_kernel_whose_smaller_one_waits_for_a_core_is_measured_all_the_same():
    """Each call waits for 10 ms, which the ratio of FLOPs would make 10 s."""
    small = after(lambda: time.sleep(0.01), gemm(16, "fp32"))._replace(flops=1)
    found = measure_kernels([gemm(64, "fp32")._replace(flops=1_000, probes=(small,))], CPU, 0.0)
    assert [sample.metric for sample in found.samples] == ["gemm_64_fp32_flops"]


def test_a_small_kernel_s_overhead_does_not_make_a_large_one_look_long():
    small = after(burn, gemm(16, "fp32"))._replace(flops=1)
    large = after(burn, gemm(16, "fp32"))._replace(flops=500)
    found = measure_kernels([gemm(64, "fp32")._replace(flops=1_000, probes=(small, large))], CPU, 0.0)
    assert (len(found.samples), found.skipped) == (1, ())


def test_each_set_of_readings_has_fresh_operands():
    drawn = []

    def make(generator):
        drawn.append(torch.randn(64, generator=generator))
        return drawn[-1]

    timed = repeat(make, lambda x: x.sort(), lambda *_: True, CPU, 0.05)
    assert len(timed.seconds) >= 4
    assert len(drawn) >= 2
    assert len({tuple(each.tolist()) for each in drawn}) == len(drawn)
