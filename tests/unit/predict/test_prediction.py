"""Predictions: formulas against hand computation and limits, buckets by hand, and what the command refuses."""

import json
import math
import re
import xml.etree.ElementTree as ET

import pytest
from honest import edit_json
from sized_runs import a_run, micro_file, wide

from hpcai500.cli.main import main
from hpcai500.errors import InputError
from hpcai500.events.vocabulary import Key, Type
from hpcai500.events.writer import format_line
from hpcai500.predict.batch_limits import batch_limits, largest_batch, reach
from hpcai500.predict.calibration import bisect, read_sizes
from hpcai500.predict.communication import (
    MIB,
    AllReduce,
    Gradient,
    Link,
    Network,
    all_reduce,
    ddp_buckets,
    gradients,
    ring_sec,
    synchronize,
    tree_sec,
)
from hpcai500.predict.network import Range, band, fit, link_band, parse_range
from hpcai500.predict.prediction import predict
from hpcai500.predict.step_model import fit_bandwidth, scenarios, slowest_of, timing
from hpcai500.report.plot import Line, log_log, ticks
from hpcai500.report.prediction import prediction_text

FAST = Link(latency_sec=0.0, bytes_per_sec=1e15)


def network(gb_s=10.0, latency_us=5.0, within=None):
    between = Link(latency_sec=latency_us * 1e-6, bytes_per_sec=gb_s * 1e9)
    return Network(between=between, within=within or between)


def per_byte(seconds):
    return lambda num_bytes: AllReduce(num_bytes * seconds, "by hand")


def test_a_ring_costs_what_the_formula_says():
    # 4 ranks, 102.2 MB, 10 GB/s, 5 us: 2 * 3 * 5e-6 + 2 * 0.75 * 0.01022
    assert ring_sec(102.2e6, 4, network().between) == pytest.approx(3e-5 + 0.01533)


def test_a_ring_of_many_ranks_sends_everything_twice_and_no_more():
    assert ring_sec(1e9, 10**6, Link(latency_sec=0.0, bytes_per_sec=1e9)) == pytest.approx(2.0, rel=1e-5)


def test_a_tree_is_the_best_pipeline_over_all_cuts():
    link = Link(latency_sec=1e-4, bytes_per_sec=1e9)
    # h = 10 levels; the continuous optimum lies just below the best whole number of parts
    cuts = [2 * (10 + k) * (1e-4 + 1e8 / (k * 1e9)) for k in range(1, 2000)]
    assert tree_sec(1e8, 10 * 1e-4, link) == pytest.approx(min(cuts), rel=1e-4)
    assert tree_sec(1e8, 10 * 1e-4, link) <= min(cuts)


def test_one_rank_pays_nothing():
    assert all_reduce(1e9, 1, 1, network()) == AllReduce(0.0, "")


def test_small_messages_of_many_nodes_take_the_tree_and_large_ones_of_few_the_ring():
    assert all_reduce(8, 512, 1, network()).algorithm == "tree"
    assert all_reduce(1e9, 4, 1, network()).algorithm == "ring"


def test_a_hierarchy_pays_the_node_and_the_network_once_each():
    within = Link(latency_sec=1e-6, bytes_per_sec=100e9)
    found = all_reduce(1e8, 8, 8, network(within=within))
    inside = 2 * 7 * 1e-6 + 2 * 7 / 8 * 1e8 / 100e9
    assert found == ("hierarchy", pytest.approx(inside + 2 * 7 * 5e-6 + 2 * 7 / 8 * 1e8 / 10e9))[::-1]


def test_cost_rises_with_nodes_and_bytes():
    by_nodes = [all_reduce(1e8, 2**k, 8, network()).sec for k in range(14)]
    assert by_nodes == sorted(by_nodes)
    by_bytes = [all_reduce(10.0**k, 64, 8, network()).sec for k in range(1, 10)]
    assert by_bytes == sorted(by_bytes)


def test_gradients_come_last_layer_first_when_their_share_of_the_backward_pass_is_done():
    assert gradients([(10, 1.0), (0, 5.0), (20, 2.0)]) == [Gradient(80, 0.25), Gradient(40, 1.0)]


def test_a_models_parameters_are_logged_by_layer_in_the_order_of_the_layers():
    from torch import nn

    from hpcai500.train.structure import structure_of

    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.BatchNorm1d(3), nn.Linear(3, 2, bias=False))
    assert list(structure_of(model, {}).layer_parameters.items()) == [("0", 15), ("2", 6), ("3", 6)]


def test_ddp_closes_its_first_bucket_at_1_mib_and_the_others_at_25():
    grads = [Gradient(MIB, 0.1), Gradient(20 * MIB, 0.2), Gradient(10 * MIB, 0.3), Gradient(3 * MIB, 1.0)]
    assert ddp_buckets(grads) == [Gradient(MIB, 0.1), Gradient(30 * MIB, 0.3), Gradient(3 * MIB, 1.0)]


def test_ddp_buckets_of_resnet_50_are_those_that_torch_makes():
    torchvision = pytest.importorskip("torchvision")
    import torch.distributed as dist

    model = torchvision.models.resnet50()
    sizes = [parameter.numel() for parameter in model.parameters()]
    ours = [bucket.num_bytes for bucket in ddp_buckets(gradients([(size, 1.0) for size in sizes]))]
    tensors = list(reversed(list(model.parameters())))
    made, _ = dist._compute_bucket_assignment_by_size(tensors, [MIB, 25 * MIB])
    theirs = [sum(4 * tensors[i].numel() for i in bucket) for bucket in made]
    assert ours == theirs
    assert sum(ours) == 4 * 25_557_032


def test_buckets_wait_for_their_gradients_and_for_each_other():
    # ready at 2 s and 10 s of 10; the first takes 12 s, so the second starts at 14 s and ends at 18 s
    grads = [Gradient(12 * MIB, 0.2), Gradient(4 * MIB, 1.0)]
    sync = synchronize(grads, 10.0, per_byte(1 / MIB), backend="torch")
    assert sync == (pytest.approx(8.0), pytest.approx(16.0), "by hand")
    # half as many bytes on the wire: 2 to 8 s, then 10 to 12 s
    assert synchronize(grads, 10.0, per_byte(1 / MIB), backend="torch", wire_bytes=0.5).exposed_sec == 2.0


def test_horovod_fuses_what_became_ready_meanwhile_up_to_128_mib():
    # 1 s a gradient of 1 MiB at once; then 100 and 100 of which only one fits beside nothing else
    grads = [Gradient(MIB, 0.1), Gradient(100 * MIB, 0.15), Gradient(100 * MIB, 0.2), Gradient(2 * MIB, 0.2)]
    calls = []

    def cost(num_bytes):
        calls.append(num_bytes / MIB)
        return AllReduce(1.0, "by hand")

    sync = synchronize(grads, 10.0, cost, backend="horovod")
    assert calls[:3] == [1, 100, 102]
    assert sync.exposed_sec == 0.0
    assert sync.busy_sec == 3.0


def test_horovod_fills_its_buffer_with_compressed_bytes():
    calls = []

    def cost(num_bytes):
        calls.append(num_bytes / MIB)
        return AllReduce(1.0, "by hand")

    synchronize([Gradient(100 * MIB, 1.0), Gradient(100 * MIB, 1.0)], 1.0, cost, backend="horovod", wire_bytes=0.5)
    assert calls[0] == 100  # both at once: 2 x 50


def test_overlap_hides_at_most_everything_and_exposes_at_most_all():
    grads = gradients([(1e6, 1.0)] * 30)
    for seconds in (0.0, 1e-12, 1e-9, 1e-6):
        for backend in ("torch", "horovod"):
            sync = synchronize(grads, 0.1, per_byte(seconds), backend=backend)
            assert 0 <= sync.exposed_sec <= sync.busy_sec + 1e-12
    # the last bucket is complete when the backward pass ends: it can never be hidden
    assert synchronize(grads, 1e9, per_byte(1e-9), backend="torch").exposed_sec > 0


def test_the_slowest_of_many_ranks_lies_where_order_statistics_say():
    # expected maxima of n standard normals: 0, 0.5642, 1.5388, 2.5076 (Harter 1961)
    for count, expected in ((1, 0.0), (2, 0.5642), (10, 1.5388), (100, 2.5076)):
        assert slowest_of(count) == pytest.approx(expected, abs=0.03)


def test_a_fit_finds_the_link_that_made_the_measurements():
    link = Link(latency_sec=30e-6, bytes_per_sec=2e9)
    found = fit([(size, ring_sec(size, 4, link)) for size in (8, 1024, 1 << 20, 16 << 20)], 4)
    for each in found:
        assert each.latency_sec == pytest.approx(30e-6)
        assert each.bytes_per_sec == pytest.approx(2e9)
    noisy = fit(
        [(size, ring_sec(size, 4, link) * factor) for size, factor in ((8, 1.2), (1 << 20, 0.9), (1 << 24, 1))], 4
    )
    assert noisy.slow.bytes_per_sec < noisy.likely.bytes_per_sec < noisy.fast.bytes_per_sec


@pytest.mark.parametrize("text", ["0", "-1", "x", "5..2", "1..2..3", "nan", "inf", ""])
def test_a_range_is_one_or_two_numbers_above_zero(text):
    with pytest.raises(InputError, match="--latency-us"):
        parse_range(text, "--latency-us")
    assert parse_range("8..12.5", "--x") == (8, 10, 12.5)


def test_limits_of_the_batch_follow_the_optimizer_and_the_literature():
    limits = batch_limits("image_classification", "full")
    known = {"measured": 256, "achieved": 0.77, "target": 0.763}
    assert reach(256, limits, "sgd", **known) == (0.77, True, "")
    assert reach(8192, limits, "sgd", **known)[:2] == (0.77, True)
    beyond = reach(16_384, limits, "sgd", **known)
    assert not beyond.is_known
    assert "lars reached 0.763 at 32,768" in beyond.note
    assert reach(32_768, limits, "lars", **known)[:2] == (0.77, True)
    assert reach(81_920, limits, "lars", **known)[:2] == (0.7508, True)
    assert reach(81_921, limits, "lars", **known)[:2] == (0.7508, False)  # beyond a shortfall no better than it
    assert batch_limits("extreme_weather", "full") == ()


def test_a_batch_that_missed_the_target_is_none_that_trains_well():
    limits = batch_limits("image_classification", "full")
    assert largest_batch(limits, "lars", 256, 0.763) == 32_768
    assert largest_batch(limits, "lars", 256, 0.750) == 81_920
    assert largest_batch(limits, "adam", 256, 0.763) == 256


def test_what_is_predicted_for_the_measured_size_is_what_was_measured(tmp_path):
    folder = a_run(tmp_path, procs=4, batch=1024)
    sizes = read_sizes([folder])
    point = predict(sizes, [1], wide(100.0, 125.0, (0.1, 0.2))).points[0]
    # 10 s an epoch over 1,251 steps
    assert sizes[0].step_sec == pytest.approx(10 / 1251)
    assert point.step_sec.likely == pytest.approx(sizes[0].step_sec, rel=1e-6)
    assert point.compute_sec < sizes[0].step_sec
    result = sizes[0].result
    assert point.flops.likely == pytest.approx(result.flops.flops, rel=1e-6)
    assert point.vflops.likely == pytest.approx(result.score.vflops, rel=1e-6)
    assert point.total_sec.likely == pytest.approx(result.time.total_sec, rel=1e-6)


def test_efficiency_falls_with_size_and_bands_hold_what_is_likely(tmp_path):
    prediction = predict(read_sizes([a_run(tmp_path)]), [1, 2, 8, 64, 512, 4096], wide(), scaling="weak")
    likely = [point.efficiency.likely for point in prediction.points]
    assert likely == sorted(likely, reverse=True)
    assert likely[0] == 1.0
    for point in prediction.points:
        assert point.global_batch_size == 256 * point.num_ranks
        for each in (point.step_sec, point.efficiency, point.flops, point.vflops, point.total_sec):
            assert each.low <= each.likely <= each.high
    bounds = [point.vflops_is_upper_bound for point in prediction.points]
    assert bounds == [False, False, False, True, True, True]  # 16,384 is beyond 8,192
    assert prediction.points[-1].step_sec.low < prediction.points[-1].step_sec.high


def test_without_costs_and_spread_a_system_scales_perfectly(tmp_path):
    free = band(*[link_band(Range(1e-9, 1e-9, 1e-9), Range(1e9, 1e9, 1e9))] * 2, ("free", "free"))
    point = predict(read_sizes([a_run(tmp_path)]), [1, 32], free, scaling="weak").points[1]
    assert point.samples_per_sec.high == pytest.approx(32 * 256 * 5004 / 10, rel=1e-3)


def test_the_recipe_keeps_a_ranks_share_until_the_batch_is_the_largest_known(tmp_path):
    points = predict(read_sizes([a_run(tmp_path)]), [2, 32, 64, 4096], wide()).points
    assert [point.global_batch_size for point in points] == [512, 8192, 8192, 8192]
    assert [point.samples_per_rank for point in points] == [256, 256, 128, 2]
    # nobody measured so small a share: at worst it takes as long as the measured one
    assert points[-1].step_sec.high > points[1].compute_sec


def test_strong_scaling_keeps_the_batch_and_names_the_sizes_that_cannot_share_it(tmp_path):
    prediction = predict(read_sizes([a_run(tmp_path)]), [2, 512], wide(), scaling="strong")
    assert [point.global_batch_size for point in prediction.points] == [256]
    assert prediction.impossible == ("512 nodes: 512 ranks share a batch of 256",)


def test_a_second_size_tells_the_bandwidth(tmp_path):
    one, four = read_sizes([a_run(tmp_path), a_run(tmp_path, nodes=4, batch=1024)])
    one, four = one._replace(step_sec=0.5, spread=None), four._replace(step_sec=0.6)
    delay = Range(10, 10, 10)
    found = fit_bandwidth(one, four, delay)
    fitted = band(found, found, ("fit", "fit"), [4])
    # what is exposed again, from the bandwidth that was found: 0.1 s less what 4 ranks wait for the slowest
    likely = scenarios(one, fitted)[1]
    waits = 0.5 * 0.043 * (slowest_of(4) - slowest_of(1))
    assert timing(one, likely, 4, 1, 256).exposed_sec == pytest.approx(0.1 - waits, rel=1e-4)
    (check,) = predict([one, four], [4], fitted).checks
    assert check.is_calibrated
    assert check.error == pytest.approx(0, abs=1e-4)
    with pytest.raises(InputError, match="no bandwidth explains"):
        fit_bandwidth(one, four._replace(step_sec=0.4), delay)


def test_a_fitted_band_holds_the_spread_of_both_steps(tmp_path):
    one, four = read_sizes([a_run(tmp_path), a_run(tmp_path, nodes=4, batch=1024)])
    delay = Range(10, 10, 10)
    one, four = one._replace(step_sec=0.5, spread=0.01), four._replace(step_sec=0.9, spread=0.01)
    near = fit_bandwidth(one, four, delay)
    assert near.slow.bytes_per_sec < near.likely.bytes_per_sec < near.fast.bytes_per_sec
    for wider in ((one._replace(spread=0.05), four), (one, four._replace(spread=0.05))):
        far = fit_bandwidth(*wider, delay)
        assert far.slow.bytes_per_sec / far.likely.bytes_per_sec < near.slow.bytes_per_sec / near.likely.bytes_per_sec
        assert far.fast.bytes_per_sec / far.likely.bytes_per_sec > near.fast.bytes_per_sec / near.likely.bytes_per_sec


def test_ranks_that_share_cores_compute_as_fast_as_their_threads(tmp_path):
    sized = read_sizes([a_run(tmp_path)])[0]._replace(step_sec=0.4, spread=0.0, threads=4, cores=8)
    found = {count: predict([sized], [1], wide(), ranks_per_node=count, scaling="weak") for count in (1, 2, 4, 16)}
    likely = {count: each.points[0].compute_sec for count, each in found.items()}
    # 4, 4, 2 and half a thread
    assert likely == {1: 0.4, 2: 0.4, 4: pytest.approx(0.8), 16: pytest.approx(3.2)}
    assert "4 ranks share a node's cores, 2 each, measured on 4 threads" in prediction_text(found[4])
    assert "share a node's cores" not in prediction_text(found[2])
    # 2 ** 0.75 to 2 ** 1.25, and the usual spread of the slowest of 4 at the worst
    step = found[4].points[0].step_sec
    assert step.low == pytest.approx(0.4 * 2**0.75, rel=0.01)
    assert step.high >= 0.4 * 2**1.25


def test_sizes_of_other_threads_are_held_against_as_many(tmp_path):
    one, two = read_sizes([a_run(tmp_path), a_run(tmp_path, procs=2, batch=512)])
    one = one._replace(step_sec=0.4, spread=0.0, threads=2, cores=2)
    two = two._replace(step_sec=0.8, threads=1, cores=2)
    prediction = predict([one, two], [1], wide(1e6, 1e6, (1e-3, 1e-3)))
    assert prediction.checks[0].error == pytest.approx(0, abs=1e-3)
    assert "2 measured ranks had 1 thread each" in prediction_text(prediction)
    # half the step is no communication then, and nothing is left to fit
    with pytest.raises(InputError, match=r"ranks \(threads a rank: 1, not 2\) are expected to take 0.8"):
        fit_bandwidth(one, two, Range(10, 10, 10))


@pytest.mark.parametrize("spread", [1.44, 50.0])
def test_the_widest_spread_still_predicts_fewer_ranks(tmp_path, spread):
    (sized,) = read_sizes([a_run(tmp_path, procs=8, batch=2048)])
    point = predict([sized._replace(step_sec=0.4, spread=spread)], [1], wide(), ranks_per_node=1).points[0]
    # ranks vary by no more than 4.3 %: what none of 8 is waited for is 1.42 times that
    assert point.compute_sec == pytest.approx(0.4, rel=0.1)
    assert 0 < point.step_sec.low < point.step_sec.likely < point.step_sec.high
    base = sized._replace(step_sec=0.4)
    scenario = scenarios(base, wide())[1]._replace(compute_sec=0.4, spread=spread)
    assert timing(base, scenario, 1, 1, 256).compute_sec == 0.2  # half, and never nothing


def test_evaluation_and_the_rest_are_the_median_of_the_seeds(tmp_path):
    (sized,) = read_sizes([a_run(tmp_path, seed=seed) for seed in (0, 1, 2)])
    epochs = len(sized.result.epochs)
    assert sized.eval_sec == 2.0
    # of 10, 10.01 and 10.02 s an epoch
    assert sized.total_sec == pytest.approx(epochs * 12.01)
    total = predict([sized._replace(first_sec=5.0, other_sec=7.0)], [1], wide()).points[0].total_sec
    assert total.likely == pytest.approx(epochs * 12.01 + 12, rel=1e-6)


def test_a_network_slower_than_the_measured_step_is_refused(tmp_path):
    with pytest.raises(InputError, match="the given network would need"):
        predict(read_sizes([a_run(tmp_path, nodes=4, batch=1024)]), [8], wide(1e-4, 1e-4))


def test_bisection_meets_its_target():
    assert bisect(lambda x: x**3, 8.0, 0.0, 10.0) == pytest.approx(2.0)
    assert bisect(lambda x: x, 1e-9, 1e-13, 1e-5) == pytest.approx(1e-9)


def test_the_table_keeps_to_100_columns(tmp_path):
    structure = {"digest": "0" * 64, "parameters_digest": "0" * 64, "num_parameters": 25_557_032, "num_tensors": 161,
                 "layer_parameters": {"a": 25_000_000, "b": 557_032}, "layer_flops": {"a": 8e9, "b": 1e8},
                 "varying_layers": []}  # fmt: skip
    sizes = read_sizes([a_run(tmp_path, procs=8, batch=2048, structure=structure)])
    prediction = predict(sizes, [2, 512, 4096], wide(100.0, 125.0, (0.1, 0.2)), scaling="weak")
    text = prediction_text(prediction)
    table = text.split("\n\n")[1]
    assert max(map(len, table.splitlines())) <= 100
    assert "PREDICTION, not a measurement" in text
    assert "spread evenly" not in text
    assert re.search(r"4,096 +32,768 ", table) is None  # a batch of 8 M exceeds the training set
    assert "impossible: 4096 nodes" in text


COMMAND = ["--bandwidth-gb-s", "10..12.5", "--latency-us", "3..8"]


def test_the_command_prints_json_and_draws_a_plot(tmp_path, capsys):
    folder, plot = a_run(tmp_path), tmp_path / "out.svg"
    assert main(["predict", str(folder), "--nodes", "64,2,8", *COMMAND, "--json", "--plot", str(plot)]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["kind"] == "prediction, not a measurement"
    assert [point["nodes"] for point in record["points"]] == [2, 8, 64]
    root = ET.fromstring(plot.read_text())
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert len(root.findall(".//{*}polygon")) == 1


def test_a_micro_file_of_the_first_version_gives_the_network(tmp_path, capsys):
    """It has the operation and the size in the metric's name alone."""
    link = Link(latency_sec=30e-6, bytes_per_sec=2e9)
    samples = [
        {"metric": f"all_reduce_{n}_sec", "value": sec, "lower_quartile": sec / 1.5, "upper_quartile": sec * 2}
        for n, sec in ((n, ring_sec(n, 4, link)) for n in (8, 1 << 20, 1 << 24))
    ]
    file = tmp_path / "micro.json"
    file.write_text(json.dumps({"nodes": 4, "num_ranks": 4, "samples": samples}))
    assert main(["predict", str(a_run(tmp_path)), "--nodes", "8", "--network", str(file), "--json"]) == 0
    network = json.loads(capsys.readouterr().out)["network"]
    between = network["likely"]["between"]
    # the quartiles lie a factor of 2 off at most
    assert network["slow"]["between"]["bytes_per_sec"] == pytest.approx(1e9)
    assert network["fast"]["between"]["latency_sec"] == pytest.approx(15e-6)
    assert between["bytes_per_sec"] == pytest.approx(2e9)
    assert between["latency_sec"] == pytest.approx(30e-6)


def test_a_link_within_a_node_tells_of_one_node_alone(tmp_path, capsys):
    folder, inner = str(a_run(tmp_path, procs=2, batch=512)), micro_file(tmp_path / "in.json", 1, 2)
    assert main(["predict", folder, "--nodes", "1,8", "--network", inner]) == 2
    assert "the link between nodes is unknown: all measured ranks are on one node" in capsys.readouterr().err
    assert main(["predict", folder, "--nodes", "1", "--network", inner]) == 0
    said = capsys.readouterr().out
    assert "link between nodes: unknown, and not needed" in said
    assert re.search(r"link within a node: 200 GB/s .*: as measured", said)


def test_runs_over_nodes_alone_tell_of_no_link(tmp_path, capsys):
    assert main(["predict", str(a_run(tmp_path, nodes=2, batch=512)), "--nodes", "1"]) == 2
    assert "unknown: no run of a single rank to compare with" in capsys.readouterr().err


def test_each_link_says_where_it_is_from(tmp_path, capsys):
    folder, inner = str(a_run(tmp_path, procs=2, batch=512)), micro_file(tmp_path / "in.json", 1, 2)
    assert main(["predict", folder, "--nodes", "8", "--network", inner, "--bandwidth-gb-s", "1", "--json"]) == 0
    network = json.loads(capsys.readouterr().out)["network"]
    assert network["between_source"] == "as given; latency assumed"
    assert network["within_source"] == "as measured"
    options = ["--bandwidth-gb-s", "300", "--latency-us", "3", "--json"]
    assert main(["predict", folder, "--nodes", "8", *options]) == 0
    network = json.loads(capsys.readouterr().out)["network"]
    assert network["between_source"] == "as given"
    assert network["within_source"].startswith("taken as between nodes, a guess")


def test_what_is_told_of_a_link_twice_is_refused(tmp_path, capsys):
    folder = str(a_run(tmp_path))
    inner, outer = micro_file(tmp_path / "in.json", 1, 2), micro_file(tmp_path / "out.json", 4, 4)
    for options, said in (
        (["--network", outer, "--latency-us", "3"], "--network FILE has the same link"),
        (["--network", outer, "--bandwidth-gb-s", "3"], "--network FILE has the same link"),
        (["--network", outer, "--network", inner, "--within-node-latency-us", "3"], "has the same link"),
        (["--network", outer, "--network", outer], "the second file of the link between nodes"),
        (["--network", inner, "--network", inner], "the second file of the link within a node"),
    ):
        assert main(["predict", folder, "--nodes", "8", *options]) == 2
        assert said in capsys.readouterr().err
    assert main(["predict", folder, "--nodes", "8", "--network", outer, "--network", inner]) == 0


def log_input(folder, reading):
    """In place of what the log says of it, if it says anything."""
    log = folder / "events.log"
    kept = [line for line in log.read_text().splitlines() if Key.INPUT.value not in line]
    place = {"time_ms": 1, "file": "by_hand.py", "lineno": 1}
    log.write_text("\n".join([*kept, format_line(Key.INPUT, Type.POINT, reading, {}, **place)]) + "\n")


def test_threads_cores_and_loaders_are_read_from_the_run(tmp_path):
    folder = a_run(tmp_path)
    assert read_sizes([folder])[0].threads is None

    def on_cpu(system):
        for group in system["nodes"]:
            group["layers"]["6"] |= {"device": "cpu", "num_threads": 2}
            group["layers"]["1"]["num_cores"] = 4

    edit_json(folder / "system.json", on_cpu)
    (sized,) = read_sizes([folder])
    assert (sized.threads, sized.cores, sized.loader_processes) == (2, 4, None)
    # as Image Classification logs it, and as Extreme Weather Analytics does
    for reading, loaders in (({"loader_processes": 3}, 3), ({"loader_processes": 0}, 0), ({"loader_threads": 1}, 1)):
        log_input(folder, reading)
        assert read_sizes([folder])[0].loader_processes == loaders
    edit_json(folder / "system.json", lambda system: system["nodes"][0].pop("layers"))
    with pytest.raises(InputError, match=r"system\.json: key 'nodes\.0\.layers' is missing"):
        read_sizes([folder])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--nodes", "two", *COMMAND], "'two' is not a number of nodes"),
        (["--nodes", "2.5", *COMMAND], "'2.5' is not a number of nodes"),
        (["--nodes", "0", *COMMAND], "'0' is not a number of nodes"),
        (["--nodes", "2,,8", *COMMAND], "'' is not a number of nodes"),
        (["--nodes", "2"], "the link between nodes is unknown: a run of one rank does not use it"),
        (["--nodes", "1", "--procs-per-node", "2"], "the link within a node is unknown"),
        (["--nodes", "1", "--latency-us", "3"], "--latency-us has no use"),
        (["--nodes", "2", *COMMAND, "--within-node-latency-us", "3"], "--within-node-latency-us has no use"),
        (["--nodes", "2", "--bandwidth-gb-s", "1", "--within-node-latency-us", "x"], "--within-node-latency-us x"),
        (["--nodes", "2", "--bandwidth-gb-s", ""], "--bandwidth-gb-s :"),
        (["--nodes", "2", "--bandwidth-gb-s", "fast"], "--bandwidth-gb-s fast"),
        (["--nodes", "2", "--procs-per-node", "0", *COMMAND], "--procs-per-node 0"),
        (["--nodes", "2", "--plot", "out.png", *COMMAND], "plots are SVG"),
        (["--nodes", "2", "--network", "nowhere.json"], "nowhere.json"),
    ],
)
def test_the_command_says_what_is_wrong_in_one_line(tmp_path, capsys, options, said):
    assert main(["predict", str(a_run(tmp_path)), *options]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_an_unfinished_run_tells_nothing(tmp_path, capsys):
    folder = a_run(tmp_path)
    log = folder / "events.log"
    log.write_text("".join(line for line in log.read_text().splitlines(keepends=True) if "run_stop" not in line))
    (folder / "result.json").unlink()
    assert main(["predict", str(folder), "--nodes", "2", *COMMAND]) == 2
    assert "the step time needs a finished run" in capsys.readouterr().err


def test_runs_of_two_systems_make_no_prediction(tmp_path, capsys):
    one, other = a_run(tmp_path), a_run(tmp_path, nodes=2, batch=512)
    for name in ("run.json", "result.json"):
        path = other / name
        path.write_text(path.read_text().replace('"system": "box"', '"system": "another"'))
    assert main(["predict", str(one), str(other), "--nodes", "2", *COMMAND]) == 2
    assert "system is 'another', elsewhere 'box'" in capsys.readouterr().err


def test_a_folder_without_runs_is_refused(tmp_path, capsys):
    assert main(["predict", str(tmp_path), "--nodes", "2", *COMMAND]) == 2
    assert "holds no run" in capsys.readouterr().err


def test_a_plot_draws_its_band_and_refuses_what_has_no_logarithm():
    svg = log_log("a < b", "x", "y", [Line("one", [(1, 10), (100, 1e15)], [(8, 12), (9e14, 2e15)])])
    root = ET.fromstring(svg)
    assert root.get("aria-label") == "a < b"
    # of a decade's 1, 2 and 5
    assert ticks(1, 20) == [1, 2, 5, 10, 20]
    assert ticks(0.9, 1e15)[:2] == [1, 1000]
    for points in ([], [(0, 1)], [(1, math.inf)]):
        with pytest.raises(ValueError, match="logarithmic"):
            log_log("", "", "", [Line("one", points)])


def test_loaders_that_read_ahead_and_are_waited_for_limit_a_step_but_for_communication(tmp_path):
    sized = read_sizes([a_run(tmp_path)])[0]._replace(step_sec=0.4, spread=0.0, wait_share=0.25, loader_processes=2)
    scenario = scenarios(sized, wide())[1]._replace(spread=0.05)
    one, many = timing(sized, scenario, 1, 1, 256), timing(sized, scenario, 8, 1, 256)
    # 0.3 s of computation, but a rank's input gives no share in less than 0.4 s
    assert one.step_sec == pytest.approx(0.4)
    assert many.compute_sec > 0.31
    assert many.compute_sec + many.wait_sec == pytest.approx(0.4)
    assert many.step_sec == pytest.approx(0.4 + many.exposed_sec)
    # a rank that reads for itself waits as long whatever it computes
    alone = timing(sized._replace(loader_processes=0), scenario, 8, 1, 256)
    assert alone.wait_sec == pytest.approx(0.1)
    assert alone.step_sec == pytest.approx(many.compute_sec + 0.1 + alone.exposed_sec)


def test_threads_that_read_ahead_limit_a_step_as_processes_do(tmp_path):
    folder = a_run(tmp_path)
    edit_json(folder / "result.json", lambda result: [epoch.update(data_wait_sec=2.5) for epoch in result["epochs"]])
    log_input(folder, {"layout": "float32", "loader_threads": 1})
    said = prediction_text(predict(read_sizes([folder]), [1], wide()))
    assert "the run waited for data 25% of a step although loaders read ahead: input limits" in said


@pytest.mark.parametrize("loaders", [0, 2])
def test_a_rank_that_waits_for_data_as_measured_has_its_whole_efficiency(tmp_path, loaders):
    sized = read_sizes([a_run(tmp_path)])[0]._replace(
        step_sec=0.4, spread=0.0, wait_share=0.5, loader_processes=loaders
    )
    one, many = predict([sized], [1, 2], wide(1e6, 1e6, (1e-3, 1e-3)), scaling="strong").points
    assert one.efficiency.likely == 1.0
    # half of 256 samples: 0.11 of the 0.2 s of computation stay, and a share waits half as long, or is read in 0.2 s
    step = 0.2 * (0.11 + 0.89 / 2) + 0.1 if loaders == 0 else 0.2
    assert many.efficiency.likely == pytest.approx(0.2 / step, rel=1e-4)


@pytest.mark.parametrize("loaders", [0, 2])
def test_no_share_of_waiting_makes_a_cliff(tmp_path, loaders):
    (sized,) = read_sizes([a_run(tmp_path, procs=2, batch=512)])
    sized = sized._replace(step_sec=0.6, loader_processes=loaders)
    slow = wide(0.19, 0.19)  # most of the step is communication

    def step(share, nodes):
        return predict([sized._replace(wait_share=share)], [nodes], slow, ranks_per_node=1, scaling="weak").points[0]

    for nodes in (1, 2, 8):
        for share in (0.01, 0.02):
            below, above = step(share - 1e-6, nodes).step_sec.likely, step(share + 1e-6, nodes).step_sec.likely
            assert above == pytest.approx(below, rel=0.02)
    assert step(0.03, 1).step_sec.likely < 0.5 * 0.6  # one rank alone has nobody to wait for


def test_the_command_fits_the_bandwidth_to_runs_of_two_sizes(tmp_path, capsys):
    one = a_run(tmp_path, batch=256)
    two = a_run(tmp_path, nodes=2, batch=512)
    # 10 s over 5,004 steps, and 8 s over 2,502: 2 ms and 3.2 ms a step
    for file in ("events.log", "result.json"):
        path = two / file
        path.write_text(re.sub(r'"train_sec": 10\.0\b', '"train_sec": 8.0', path.read_text()))
    assert main(["predict", str(one), str(two), "--nodes", "64", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["network"]["between_source"] == "bandwidth fitted to the step on 2 ranks; latency assumed"
    (check,) = record["checks"]
    assert check["is_calibrated"]
    assert check["predicted_sec"] == pytest.approx(check["measured_sec"], rel=1e-3)
    assert check["measured_sec"] == pytest.approx(8 / 2502)
