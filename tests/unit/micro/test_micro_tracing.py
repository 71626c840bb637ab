import pytest
import torch
from torch import nn
from torchvision.models import resnet50

from hpcai500.micro.compute import measure_kernel
from hpcai500.micro.passes import synthetic_spec, time_steps, trace_workload
from hpcai500.micro.sample import rate
from hpcai500.micro.tracing import Tracer, by_flops, num_bytes_of, trace
from hpcai500.micro.workload_kernels import SHARE, choose, kernel_of, measure_workload

CPU = torch.device("cpu")


def test_the_shapes_of_resnet50_sum_to_the_counters_forward_flops():
    with torch.device("meta"):
        model, images = resnet50(), torch.randn(1, 3, 224, 224)
    with Tracer() as tracer:
        model(images)
    assert tracer.trace.flops == 8_178_368_512
    # 53 convolutions and one product
    assert sum(each.count for each in tracer.trace.operations.values()) == 54


def test_the_shapes_of_a_training_pass_sum_to_what_a_run_counts():
    spec = synthetic_spec("image_classification", "full", CPU, "bf16")
    found = trace_workload(spec, CPU)
    assert spec.micro_batch_size == 8
    # forward twice more for the gradients, less the first convolution's for its input: 2 x 7 x 7 x 3 x 64 x 112 x 112
    assert found.flops == 8 * (3 * 8_178_368_512 - 2 * 49 * 3 * 64 * 112 * 112)


def test_flops_and_bytes_of_a_two_layer_model_by_hand():
    """Batch 4, 3 features to 5 to 2, no bias; ReLU between; the loss is the sum. float32."""
    model = nn.Sequential(nn.Linear(3, 5, bias=False), nn.ReLU(), nn.Linear(5, 2, bias=False))
    inputs = torch.randn(4, 3)
    found = trace(lambda: model(inputs).sum())
    # forward 4x3x5 and 4x5x2; weights' gradients the same; the hidden layer's gradient 4x2x5: MAC = 2
    assert found.flops == 2 * (60 + 40 + 60 + 40 + 40)
    x, w1, h, w2, y = 12, 15, 20, 10, 8
    products = (x + w1 + h) + (h + w2 + y) + (y + h + w2) + (y + w2 + h) + (h + x + w1)
    # the gradient of the sum is one number, expanded: as an operand of the products above it is read once
    products -= 2 * (y - 1)
    assert found.fused_bytes == 4 * products
    relu, sum_, threshold, ones = 2 * h, y + 1, 3 * h, 2
    assert found.unfused_bytes == 4 * (products + relu + sum_ + threshold + ones)


def test_views_and_allocations_move_nothing_and_an_overwritten_tensor_is_not_read():
    source = torch.randn(6)
    with Tracer() as tracer:
        source.view(2, 3).t()
        torch.empty(100)
    assert tracer.trace.unfused_bytes == 0
    target = torch.empty(6)
    with Tracer() as tracer:
        target.copy_(source)
    assert tracer.trace.unfused_bytes == 4 * (6 + 6)
    assert num_bytes_of(torch.ones(1).expand(50)) == 4


def test_a_detectors_shapes_are_traced_too():
    found = trace_workload(synthetic_spec("extreme_weather", "mini", CPU), CPU)
    assert found.flops > 0
    assert found.unfused_bytes > found.fused_bytes > 0


def test_operations_are_chosen_by_their_flops_until_most_are_covered():
    found = trace_workload(synthetic_spec("image_classification", "mini", CPU), CPU)
    chosen = list(choose(found))
    amounts = [counted.count * counted.flops for _, counted in by_flops(found)]
    assert amounts == sorted(amounts, reverse=True)
    assert [c.count * c.flops for _, c in chosen] == amounts[: len(chosen)]
    assert sum(amounts[: len(chosen)]) >= SHARE * found.flops > sum(amounts[: len(chosen) - 1])


# He et al. 2016, table 1, with the stride in the 3 x 3: channels in and out, kernel, size of the output, times
RESNET50 = [
    (3, 64, 7, 112, 1),
    (64, 64, 1, 56, 1), (64, 64, 3, 56, 3), (64, 256, 1, 56, 4), (256, 64, 1, 56, 2),
    (256, 128, 1, 56, 1), (128, 128, 3, 28, 1), (256, 512, 1, 28, 1),
    (128, 512, 1, 28, 4), (512, 128, 1, 28, 3), (128, 128, 3, 28, 3),
    (512, 256, 1, 28, 1), (256, 256, 3, 14, 1), (512, 1024, 1, 14, 1),
    (256, 1024, 1, 14, 6), (1024, 256, 1, 14, 5), (256, 256, 3, 14, 5),
    (1024, 512, 1, 14, 1), (512, 512, 3, 7, 1), (1024, 2048, 1, 7, 1),
    (512, 2048, 1, 7, 3), (2048, 512, 1, 7, 2), (512, 512, 3, 7, 2),
]  # fmt: skip


def test_resnet50s_shapes_are_its_23_distinct_convolutions_each_as_often_as_the_paper_has_it():
    found = trace_workload(synthetic_spec("image_classification", "full", CPU), CPU)
    assert sum(times for *_, times in RESNET50) == 53
    by_hand = {1: [], 3: []}  # FLOPs and times: forward, and backward, where the first layer's input has no gradient
    for channels, out, kernel, size, times in RESNET50:
        flops = 8 * 2 * channels * out * kernel**2 * size**2
        by_hand[1].append((flops, times))
        by_hand[3].append((flops if channels == 3 else 2 * flops, times))
    traced = {1: [], 3: []}
    products = 0
    for operation, counted in found.operations.items():
        if "convolution" in operation.name:
            traced[3 if "backward" in operation.name else 1].append((counted.flops, counted.count))
        else:
            products += counted.count * counted.flops
    assert {key: sorted(of) for key, of in traced.items()} == {key: sorted(of) for key, of in by_hand.items()}
    assert products == 3 * 8 * 2 * 2048 * 1000
    # most FLOPs first, 26 shapes reach four fifths of the pass, 25 do not
    amounts = sorted((flops * times for of in by_hand.values() for flops, times in of), reverse=True)
    whole = sum(amounts) + products
    assert sum(amounts[:25]) < 0.8 * whole <= sum(amounts[:26])
    assert len(list(choose(found))) == 26


def test_an_operation_is_executed_again_on_random_operands_of_its_shapes():
    model = nn.Conv2d(3, 4, 3, stride=2, padding=1)
    found = trace(lambda: model(torch.randn(2, 3, 8, 8)).sum())
    names = {}
    for operation, counted in by_flops(found):
        kernel = kernel_of(operation, counted, "fp32")
        names[kernel.name] = counted.flops
        assert measure_kernel(kernel, CPU, 0.0).correct
    # 2 x 9 x 3 x 4 at 2 x 4 x 4 pixels; the input needs no gradient, so backward needs the same once
    assert names == {"conv.2x3x8x8.4x3x3x3.s2": 6_912, "conv_backward.2x3x8x8.4x3x3x3.s2": 6_912}


def test_a_workloads_shapes_are_measured_with_their_shares(tmp_path):
    found = measure_workload("image_classification", "mini", CPU, precision="fp32", budget_sec=0.5)
    *shapes, whole = found.samples
    assert whole.metric == "image_classification_mini_shapes_fp32_flops"
    (covered,) = found.coverages
    assert (covered.workload, covered.problem, covered.num_samples) == ("image_classification", "mini", 32)
    assert [shape.metric for shape in covered.shapes] == [sample.metric for sample in shapes]
    assert covered.share == pytest.approx(whole.flops / covered.pass_flops)
    assert whole.flops == pytest.approx(
        sum(float(s.flops) * int(s.detail.split("; ")[1].split(" ")[0]) for s in shapes)
    )
    times = [s.flops * int(s.detail.split("; ")[1].split(" ")[0]) / s.value for s in shapes]
    assert whole.value == pytest.approx(whole.flops / sum(times))
    assert found.correct


def test_shapes_that_the_budget_has_no_time_for_are_left_out_and_their_number_said():
    found = measure_workload("image_classification", "mini", CPU, precision="fp32", budget_sec=1e-9)
    heaviest, _ = found.samples
    (covered,) = found.coverages
    assert [(shape.metric, shape.count) for shape in covered.shapes] == [(heaviest.metric, 5)]
    assert covered.share == pytest.approx(heaviest.flops * 5 / covered.pass_flops)
    assert [skipped.reason.partition(":")[0] for skipped in found.skipped] == ["25 of the 26 heaviest shapes"]


def test_steps_are_timed_as_samples_a_second():
    assert time_steps(synthetic_spec("image_classification", "mini", CPU), CPU, 0.1).median > 0
    assert rate(32, [2.0, 2.0, 2.0]).median == 16
