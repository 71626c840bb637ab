import pytest
import torch
from torch import nn
from torchvision.models import resnet50

from hpcai500.spec.models import parse
from hpcai500.spec.reference import ModelReference, find_reference
from hpcai500.train.flops import count_flops
from hpcai500.train.structure import structure_of


def resnet50_flops(image_size: int, num_classes: int) -> tuple[int, int]:
    """FLOPs of ResNet-50 v1.5 for one image, forward and forward plus backward, counted by hand layer by layer.

    A convolution needs `2 * k^2 * in * out * pixels` FLOPs. Its backward pass needs twice as many, for the weights
    and for the input; the first convolution needs no gradient of its input.
    """
    forward = 0

    def conv(channels_in, channels_out, kernel, size_in, stride):
        nonlocal forward
        size = -(-size_in // stride)  # "same" padding: the ceiling
        forward += 2 * kernel**2 * channels_in * channels_out * size**2
        return size

    size = conv(3, 64, 7, image_size, 2)
    first = forward
    size = -(-size // 2)  # 3x3 max pooling, stride 2
    channels = 64
    for width, blocks, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for block in range(blocks):
            step = stride if block == 0 else 1
            if block == 0:
                conv(channels, 4 * width, 1, size, step)  # the shortcut's projection
            conv(channels, width, 1, size, 1)
            size = conv(width, width, 3, size, step)  # v1.5: the stride is in the 3x3
            conv(width, 4 * width, 1, size, 1)
            channels = 4 * width
    forward += 2 * 2048 * num_classes
    return forward, 3 * forward - first


def cross_entropy(model, batch):
    return nn.functional.cross_entropy(model(batch), torch.zeros(len(batch), dtype=torch.long, device=batch.device))


def test_resnet50_at_224_needs_the_published_number_of_flops():
    forward, executed = resnet50_flops(224, 1000)
    assert forward == 8_178_368_512  # twice the 4.089 GMAC of torchvision's model table
    with torch.device("meta"):
        model, images = resnet50(), torch.randn(2, 3, 224, 224)
    count = count_flops(model, [(images, 2)], cross_entropy)
    assert count.mean == executed
    assert count.mean == pytest.approx(24.30e9, rel=1e-3)


def test_the_mini_problem_is_counted_likewise_on_real_tensors_and_under_autocast():
    model, images = resnet50(num_classes=10), torch.randn(2, 3, 32, 32)
    expected = resnet50_flops(32, 10)[1]
    assert count_flops(model, [(images, 2)], cross_entropy).mean == expected

    def in_bf16(model, batch):
        with torch.autocast("cpu", torch.bfloat16):
            return cross_entropy(model, batch)

    assert count_flops(model, [(images, 2)], in_bf16).mean == expected


@pytest.mark.parametrize(("problem", "size", "num_classes"), [("mini", 32, 10), ("full", 224, 1000)])
def test_the_reference_of_image_classification_holds_what_the_layers_need(problem, size, num_classes):
    known = find_reference("resnet", problem).known
    forward, executed = resnet50_flops(size, num_classes)
    assert sum(known.model.layer_flops.values()) == forward
    assert known.flops_per_sample == executed
    with torch.device("meta"):
        model, images = resnet50(num_classes=num_classes), torch.randn(2, 3, size, size)
    structure = structure_of(model, count_flops(model, [(images, 2)], cross_entropy).layers)
    assert (
        parse(ModelReference, structure.model_dump(mode="json", include=set(ModelReference.model_fields)), "model")
        == known.model
    )


class Blocks(nn.Module):
    """A list of modules is never called; the layers in it are."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(4, 3)), nn.Sequential(nn.Linear(3, 2))])
        self.weight = nn.Parameter(torch.ones(2, 2))

    def forward(self, rows):
        for block in self.blocks:
            rows = block(rows)
        return rows @ self.weight


def test_flops_stand_at_the_layer_that_needs_them_and_nowhere_else():
    layers = count_flops(nn.Sequential(Blocks()), [(torch.ones(5, 4), 5)], lambda m, b: m(b).sum()).layers
    assert {name: layer.mean for name, layer in layers.items()} == {
        "0.blocks.0.0": 2 * 4 * 3, "0.blocks.1.0": 2 * 3 * 2, "0": 2 * 2 * 2,
    }  # fmt: skip


def test_the_spread_is_over_batches_of_different_shapes():
    model = nn.Linear(4, 3)
    batches = [(torch.ones(2, 4), 2), (torch.ones(6, 4), 2)]
    # a Linear layer whose input needs no gradient: 2 * rows * 4 * 3, forward and for the weights
    count = count_flops(model, batches, lambda model, batch: model(batch).sum())
    assert (count.mean, count.num_batches) == ((48 + 144) / 2, 2)
    assert count.standard_deviation == pytest.approx(((48 - 96) ** 2 + (144 - 96) ** 2) ** 0.5)


def test_a_synchronised_batch_norm_is_counted_by_one_rank_alone():
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.SyncBatchNorm(2))
    count = count_flops(model, [(torch.ones(3, 1, 4, 4), 3)], lambda m, b: m(b).sum())
    assert count.mean == 2 * (2 * 1 * 2 * 16)  # forward and for the weights
    assert isinstance(model[1], nn.SyncBatchNorm)


def test_counting_leaves_model_gradients_and_generators_as_they_were():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    count_flops(model, [(torch.randn(8, 4, generator=torch.Generator()), 8)], lambda m, b: m(b).sum())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
