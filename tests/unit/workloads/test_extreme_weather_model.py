"""Extreme Weather Analytics: the detector, its FLOPs, its quality, and reading ahead."""

import itertools
import sys
import threading
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from hpcai500.errors import DataError, SpecError
from hpcai500.files import data_dir
from hpcai500.spec.models import parse
from hpcai500.spec.reference import find_reference
from hpcai500.spec.workload import load_rules
from hpcai500.train.flops import count_flops
from hpcai500.train.optim import build_optimizer
from hpcai500.train.workload import SampleKey, load_workload

sys.path.insert(0, str(data_dir("workloads")))
from extreme_weather.evaluation import FrameResult, average_precisions, merge
from extreme_weather.loading import ReadAhead
from extreme_weather.model import Detector, FrameSampler, ModelSettings

RULES = load_rules(data_dir("workloads") / "extreme_weather")
HEIGHT, WIDTH = 64, 96


def settings_of(problem: str, **changes) -> ModelSettings:
    return parse(ModelSettings, RULES.problems[problem].model | changes, "model")


def build(settings: ModelSettings) -> Detector:
    torch.manual_seed(0)
    return Detector(settings)


def frames_of(num_frames):
    return torch.randn(num_frames, 16, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(1))


def targets_of(num_frames):
    """Two boxes in each frame but the second, which has none."""
    boxes = torch.tensor([[10.0, 10.0, 30.0, 30.0], [50.0, 20.0, 80.0, 40.0]])
    labels = torch.tensor([1, 4])
    counts = [0 if number == 1 else 2 for number in range(num_frames)]
    return [{"boxes": boxes[:count], "labels": labels[:count]} for count in counts]


def total(losses):
    return torch.stack(list(losses.values())).sum()


def test_the_losses_of_a_global_batch_are_the_means_over_its_shares_on_2_and_4_ranks():
    model = build(settings_of("mini"))
    frames, targets, seeds = frames_of(4), targets_of(4), [11, 22, 33, 44]

    def losses(start, stop):
        torch.rand(1)  # wherever the global generator stands
        return torch.stack(list(model(frames[start:stop], targets[start:stop], seeds[start:stop]).values()))

    whole = losses(0, 4)
    for size in (1, 2):
        shares = torch.stack([losses(start, start + size) for start in range(0, 4, size)])
        torch.testing.assert_close(shares.mean(dim=0), whole, rtol=1e-4, atol=1e-5)


def test_a_frame_draws_the_same_samples_whatever_batch_it_stands_in():
    sampler = FrameSampler(8, positive_fraction=0.5)
    matches = [torch.tensor([0, 1, -1] * 20), torch.tensor([0] * 60), torch.tensor([1, 0] * 30)]
    sampler.seeds = (7, 8, 9)
    together = sampler(matches)
    for number, match in enumerate(matches):
        sampler.seeds = (7 + number,)
        alone = sampler([match])
        for kind in (0, 1):
            assert torch.equal(alone[kind][0], together[kind][number])
    assert [int(mask.sum()) for mask in together[0]] == [4, 0, 4]
    assert [int(mask.sum()) for mask in together[1]] == [4, 8, 4]
    assert not (together[0][0].bool() & (matches[0] != 1)).any()


def test_another_seed_samples_other_anchors():
    model = build(settings_of("mini"))
    first, second = (model(frames_of(2), targets_of(2), seeds)["loss_objectness"] for seeds in ([1, 2], [3, 4]))
    assert first != second


@pytest.mark.parametrize("norm", ["group", "batch", "frozen_batch"])
def test_frames_without_boxes_train_and_evaluate_under_every_norm(norm):
    model = build(settings_of("mini", norm=norm))
    empty = [{"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}] * 2
    total(model(frames_of(2), empty, [1, 2])).backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    with torch.no_grad():
        detections = model.eval()(frames_of(2))
    assert [set(found) for found in detections] == [{"boxes", "labels", "scores"}] * 2


def test_boxes_keep_float32_under_autocast():
    model = build(settings_of("mini", score_threshold=0.0)).eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        boxes = model(frames_of(1))[0]["boxes"]
    assert boxes.dtype == torch.float32
    assert not torch.equal(boxes, boxes.bfloat16().float())


def test_synchronised_norm_is_that_of_torch():
    assert any(
        isinstance(module, nn.SyncBatchNorm) for module in Detector(settings_of("mini", norm="sync_batch")).modules()
    )


def test_anchor_sizes_that_do_not_fit_the_pyramid_are_refused():
    with pytest.raises(SpecError, match="anchor_sizes: 2 sizes for 5 pyramid levels"):
        settings_of("full", anchor_sizes=[8.0, 16.0])


def conv(channels_in, channels_out, kernel, height, width):
    return 2 * channels_in * channels_out * kernel * kernel * height * width


def stages_by_hand(settings, sizes):
    """`sizes`: height and width after each stage. ResNet v1.5: the 1x1 before a strided 3x3 sees the larger map."""
    depths = {"resnet10": [1, 1, 1, 1], "resnet18": [2, 2, 2, 2], "resnet50": [3, 4, 6, 3]}[settings.backbone]
    flops, channels = 0, 64
    for stage, (height, width) in enumerate(sizes):
        planes = 64 * 2**stage
        for block in range(depths[stage]):
            scale = 2 if stage > 0 and block == 0 else 1
            if settings.backbone == "resnet50":
                outward = 4 * planes
                flops += conv(channels, planes, 1, scale * height, scale * width)
                flops += conv(planes, planes, 3, height, width)
                flops += conv(planes, outward, 1, height, width)
            else:
                outward = planes
                flops += conv(channels, planes, 3, height, width)
                flops += conv(planes, planes, 3, height, width)
            if channels != outward:
                flops += conv(channels, outward, 1, height, width)
            channels = outward
    return flops


def pyramid_by_hand(settings, sizes):
    expansion, channels = 4 if settings.backbone == "resnet50" else 1, settings.num_pyramid_channels
    return sum(
        conv(64 * expansion * 2**stage, channels, 1, *size) + conv(channels, channels, 3, *size)
        for stage, size in enumerate(sizes)
    )


def proposal_head_by_hand(settings, sizes):
    """On the pyramid's levels and on one of half the last's size, rounded up."""
    channels, anchors = settings.num_pyramid_channels, len(settings.anchor_aspects)
    levels = [*sizes, tuple((length + 1) // 2 for length in sizes[-1])]
    return sum(conv(channels, channels, 3, *size) + conv(channels, 5 * anchors, 1, *size) for size in levels)


def box_head_by_hand(settings, num_proposals):
    width = settings.num_head_features
    return 2 * num_proposals * (settings.num_pyramid_channels * 7 * 7 * width + width * width + width * (5 + 20))


def training_by_hand(settings, height, width, num_proposals):
    """One frame forward and backward: three times the forward pass, but for the gradient of the frame itself."""
    first = (height // 2, width // 2)
    halvings = [stage + settings.stem_pooling for stage in range(settings.num_stages)]
    sizes = [(first[0] // 2**number, first[1] // 2**number) for number in halvings]
    rest = (
        stages_by_hand(settings, sizes)
        + pyramid_by_hand(settings, sizes)
        + proposal_head_by_hand(settings, sizes)
        + box_head_by_hand(settings, num_proposals)
    )
    return 2 * conv(16, 64, 7, *first) + 3 * rest


def test_training_the_mini_model_takes_the_flops_of_its_layers():
    settings = settings_of("mini")
    batch = (frames_of(4), targets_of(4), [1, 2, 3, 4])
    counted = count_flops(build(settings), [(batch, 4)], lambda model, arguments: total(model(*arguments)))
    assert counted.mean == training_by_hand(settings, HEIGHT, WIDTH, settings.num_sampled_proposals)


def test_the_parts_of_the_full_model_take_the_flops_of_their_layers():
    settings, num_proposals = settings_of("full"), 512
    with torch.device("meta"):
        model = Detector(settings)
        frames = torch.empty(1, 16, 768, 1152)
        pooled = torch.empty(num_proposals, settings.num_pyramid_channels, 7, 7, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        levels = list(model.backbone(frames).values())
        judged = model.roi_heads.box_predictor(model.roi_heads.box_head(pooled))
        outputs = itertools.chain(*model.rpn.head(levels), judged)
        torch.stack([output.sum() for output in outputs]).sum().backward()
    assert counter.get_total_flops() == training_by_hand(settings, 768, 1152, num_proposals)


@pytest.mark.parametrize(
    ("problem", "height", "width", "num_proposals"), [("mini", HEIGHT, WIDTH, None), ("full", 768, 1152, 512)]
)
def test_the_reference_holds_what_the_layers_need(problem, height, width, num_proposals):
    settings = settings_of(problem)
    known = find_reference("extreme_weather", problem).known
    executed = training_by_hand(settings, height, width, num_proposals or settings.num_sampled_proposals)
    assert known.flops_per_sample == executed
    stem = conv(16, 64, 7, height // 2, width // 2)
    assert 3 * sum(known.model.layer_flops.values()) - stem == executed


BOX, OTHER = [0.0, 0.0, 10.0, 10.0], [20.0, 20.0, 30.0, 30.0]
HALF, LESS = [0.0, 0.0, 5.0, 10.0], [0.0, 0.0, 4.9, 10.0]


def frame(index, found, truth):
    """`found`: (box, label, score); `truth`: (box, label)."""
    boxes, labels, scores = zip(*found, strict=True)
    true_boxes, true_labels = zip(*truth, strict=True) if truth else ((), ())
    return FrameResult(index, list(boxes), list(labels), list(scores), list(true_boxes), list(true_labels))


FRAMES = [
    frame(0, [(BOX, 0, 0.9), (LESS, 1, 0.8), (HALF, 1, 0.7), (OTHER, 3, 0.9)], [(BOX, 0), (BOX, 1), (OTHER, 2)]),
    frame(1, [(BOX, 0, 0.8)], []),
    frame(2, [(OTHER, 0, 0.7)], [(OTHER, 0)]),
]
EXPECTED = {
    # By falling score a hit, a miss (in the frame without boxes) and a hit, of two true boxes: precision 1 up to
    # recall 1/2, then 2/3 up to 1. Of the recall points 0.00, 0.01 .. 1.00, 51 are at most 1/2.
    0: (51 * 1 + 50 * 2 / 3) / 101,
    1: 1 / 2,  # a miss with IoU 0.49, then a hit with IoU 0.5: precision 1/2 at every recall
    2: 0.0,  # never found
}  # and none for class 3, which was found but is nowhere


def test_average_precisions_worked_out_by_hand(capfd):
    assert average_precisions(FRAMES, 4) == pytest.approx(EXPECTED, abs=1e-12)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("num_states", [1, 2, 3])
def test_the_average_precisions_do_not_depend_on_the_number_of_ranks(num_states):
    states = [FRAMES[rank::num_states] for rank in range(num_states)]
    assert average_precisions(merge(states), 4) == average_precisions(FRAMES, 4)


def test_a_frame_with_nothing_found_counts_its_boxes_as_missed():
    nothing = FrameResult(0, [], [], [], [BOX], [2])
    assert average_precisions([nothing], 4) == {2: 0.0}


def test_an_evaluation_set_without_a_box_is_refused():
    with pytest.raises(DataError, match="no box"):
        average_precisions([FRAMES[1]], 4)


def test_batches_come_in_order_and_only_so_many_are_read_ahead():
    asked = []

    def read(keys):
        asked.append(keys)
        return sum(keys)

    batches = [[number, 1] for number in range(20)]
    reader = ReadAhead(read, num_threads=3).read(batches)
    for number in range(20):
        assert next(reader) == number + 1
        assert len(asked) <= number + 1 + 4  # the one taken, and one more than there are threads
    assert next(reader, None) is None


def test_an_error_arrives_as_it_was_raised_with_the_batch_that_it_befell():
    error = DataError("climo_1980.h5: truncated")

    def read(keys):
        if keys == [2]:
            raise error
        return keys

    reader = ReadAhead(read, num_threads=2).read([[0], [1], [2], [3]])
    assert [next(reader), next(reader)] == [[0], [1]]
    with pytest.raises(DataError) as raised:
        next(reader)
    assert raised.value is error


def test_a_reader_that_is_left_early_ends_its_threads():
    before = threading.active_count()
    reader = ReadAhead(lambda keys: keys, num_threads=4).read([[number] for number in range(100)])
    next(reader)
    assert threading.active_count() > before
    reader.close()
    assert threading.active_count() == before


WORKLOAD = load_workload(data_dir("workloads") / "extreme_weather")
CPU = torch.device("cpu")
ONE_RANK = SimpleNamespace(rank=0, size=1, local_size=1, device=CPU, broadcast=lambda value: value)


def test_a_random_batch_trains_and_evaluates_to_a_named_precision_for_each_class(make_spec):
    workload = WORKLOAD(make_spec("extreme_weather", data="synthetic"))
    model = workload.build_model()
    batch = workload.to_device(workload.synthetic_batch(4, CPU, seed=0), CPU)
    loss = workload.loss(model, batch)
    loss.backward()
    assert loss.isfinite()
    workload.start_evaluation()
    with torch.no_grad():
        workload.evaluate(model.eval(), batch)
    state = workload.evaluation_state()
    assert [result.index for result in state] == [0, 1, 2, 3]
    quality = workload.quality([state])
    details = dict(quality.details)
    assert details.pop("num_samples") == 4
    assert quality.value == pytest.approx(sum(details.values()) / len(details))
    assert set(details) <= {
        "ap_tropical_depression",
        "ap_tropical_cyclone",
        "ap_extratropical_cyclone",
        "ap_atmospheric_river",
    }


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """8 frames a year of the mini problem."""
    folder = tmp_path_factory.mktemp("extreme_weather")
    list(WORKLOAD.synthesize_data("mini", RULES.problems["mini"], folder, num_samples=8, seed=0))
    return folder


def test_frames_come_normalised_with_their_boxes_whatever_batch_they_stand_in(make_spec, data):
    workload = WORKLOAD(make_spec("extreme_weather", data=str(data)))
    info = workload.open_data(data, ONE_RANK)
    assert (info.num_train_samples, info.num_eval_samples) == (16, 8)
    keys = [SampleKey(1, sample) for sample in range(16)]
    (whole,) = (workload.to_device(batch, CPU) for batch in workload.train_batches([keys]))
    torch.testing.assert_close(whole.frames.mean(dim=(0, 2, 3)), torch.zeros(16), atol=1e-3, rtol=0)
    torch.testing.assert_close(whole.frames.std(dim=(0, 2, 3)), torch.ones(16), atol=1e-3, rtol=0)
    for number, batch in enumerate(workload.train_batches([[key] for key in keys])):
        single = workload.to_device(batch, CPU)
        assert torch.equal(single.frames[0], whole.frames[number])
        assert torch.equal(single.boxes[0], whole.boxes[number])
        assert (single.indices, single.seeds) == ((number,), (whole.seeds[number],))


def test_each_evaluation_frame_counts_once_whatever_the_number_of_ranks(make_spec, data):
    workload = WORKLOAD(make_spec("extreme_weather", {"problem.num_eval_samples": 8}, data=str(data)))
    workload.open_data(data, ONE_RANK)
    model = workload.build_model().eval()

    def state(indices):
        workload.start_evaluation()
        with torch.no_grad():
            for batch in workload.eval_batches([indices[start : start + 3] for start in range(0, len(indices), 3)]):
                workload.evaluate(model, workload.to_device(batch, CPU))
        return workload.evaluation_state()

    alone = workload.quality([state(range(8))])
    for size in (2, 3):
        assert workload.quality([state(range(rank, 8, size)) for rank in range(size)]).value == pytest.approx(
            alone.value
        )
    with pytest.raises(AssertionError):
        workload.quality([state(range(8)), state([3])])


def test_statistics_of_other_years_are_refused(make_spec, data):
    workload = WORKLOAD(make_spec("extreme_weather", {"data.train_years": [1979]}, data=str(data)))
    with pytest.raises(DataError, match="statistics are of 1979, 1980, the run trains on 1979"):
        workload.open_data(data, ONE_RANK)


def test_what_is_sampled_of_a_frame_follows_from_the_seed_the_epoch_and_the_sample():
    frame_seed = sys.modules["extreme_weather.workload"].frame_seed
    keys = [(0, SampleKey(1, 2)), (1, SampleKey(1, 2)), (0, SampleKey(2, 2)), (0, SampleKey(1, 3))]
    seeds = [frame_seed(seed, key) for seed, key in keys]
    assert len(set(seeds)) == 4
    assert seeds[0] == frame_seed(0, SampleKey(1, 2)) < 2**64


def test_adamw_matches_its_formula_worked_by_hand():
    # First step: both moments, their bias corrected, are g and g^2: w = w (1 - lr wd) - lr g / (|g| + 1e-8)
    w = nn.Parameter(torch.tensor([3.0, -4.0]))
    module = nn.Module()
    module.w = w
    settings = RULES.problems["mini"].optimizer.model_copy(update={"weight_decay": 0.1})
    optimizer = build_optimizer(module, settings, fused=True)
    optimizer.param_groups[0]["lr"] = 0.5
    w.grad = torch.tensor([2.0, 1.0])
    optimizer.step()
    assert w.tolist() == pytest.approx([3.0 * 0.95 - 0.5, -4.0 * 0.95 - 0.5])
