"""What a prediction makes of runs and networks that are unfinished, oversubscribed, uneven or impossible."""

import json
import re
import xml.etree.ElementTree as ET

import pytest
from honest import edit_json, edit_log
from sized_runs import a_run, micro_file, wide

from hpcai500.cli.main import main
from hpcai500.events.vocabulary import Key
from hpcai500.predict.calibration import read_sizes
from hpcai500.predict.network import Range
from hpcai500.predict.prediction import predict
from hpcai500.predict.step_model import fit_bandwidth
from hpcai500.report.prediction import prediction_text

NETWORK = ["--bandwidth-gb-s", "10..12.5", "--latency-us", "3..8"]
FREE = wide(1e6, 1e6, (1e-3, 1e-3))


def on_cpu(folder, *, threads, own, cores):
    """`own` cores of a rank, `cores` of a node."""

    def change(system):
        for group in system["nodes"]:
            group["layers"]["6"] |= {"device": "cpu", "num_threads": threads, "num_cores": own}
            group["layers"]["1"]["num_cores"] = cores

    edit_json(folder / "system.json", change)
    return folder


def unfinish(folder):
    log = folder / "events.log"
    log.write_text("".join(line for line in log.read_text().splitlines(keepends=True) if "run_stop" not in line))
    (folder / "result.json").unlink()
    return folder


def refusal(capsys, *args):
    assert main(["predict", *map(str, args)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_a_measured_rank_counts_no_more_threads_than_it_had_cores(tmp_path):
    one = on_cpu(a_run(tmp_path), threads=2, own=2, cores=2)
    two = on_cpu(a_run(tmp_path, procs=2, batch=512), threads=2, own=1, cores=2)
    sizes = read_sizes([one, two])
    assert [each.measured_threads for each in sizes] == [2, 1]
    assert [each.is_oversubscribed for each in sizes] == [False, True]
    one, two = sizes[0]._replace(step_sec=0.4, spread=0.0), sizes[1]._replace(step_sec=0.8)
    # half the cores and no communication: twice as long
    prediction = predict([one, two], [1], FREE)
    assert prediction.checks[0].error == pytest.approx(0, abs=1e-3)
    said = prediction_text(prediction)
    assert "oversubscribed: the run on 2 ranks had 4 threads on 2 cores of a node" in said
    assert "such as a fitted link, is doubtful" in said
    # what half the cores do not explain is the link's, and no more: with as many threads it would be 0.5 of 0.9 s
    link = fit_bandwidth(one, two._replace(step_sec=0.9), Range(10, 10, 10)).likely
    equal = fit_bandwidth(one, two._replace(step_sec=0.9, threads=1), Range(10, 10, 10)).likely
    assert link == equal


def test_a_run_that_started_too_many_threads_invents_no_cores(tmp_path):
    (sized,) = read_sizes([on_cpu(a_run(tmp_path, procs=2, batch=512), threads=4, own=1, cores=2)])
    sized = sized._replace(step_sec=0.8, spread=0.0)
    found = {count: predict([sized], [1], FREE, ranks_per_node=count, scaling="weak") for count in (1, 2, 4)}
    likely = {count: each.points[0].compute_sec for count, each in found.items()}
    # 2, 1 and half a core each
    assert likely == {
        1: pytest.approx(0.4, rel=0.03),
        2: pytest.approx(0.8, rel=0.03),
        4: pytest.approx(1.6, rel=0.03),
    }
    for prediction in found.values():
        assert "oversubscribed: the run on 2 ranks had 8 threads on 2 cores" in prediction_text(prediction)
    # at best half the cores cost 2 ** 0.75, and twice the cores save 2 ** 1.25
    assert found[1].points[0].step_sec.low == pytest.approx(0.8 / 2**1.25, rel=0.03)


def test_ranks_that_a_site_confines_have_the_cores_that_it_gave_them(tmp_path):
    (sized,) = read_sizes([on_cpu(a_run(tmp_path, procs=2, batch=512), threads=8, own=4, cores=64)])
    assert (sized.cores, sized.measured_threads, sized.is_oversubscribed) == (8, 4, True)
    (sized,) = read_sizes([on_cpu(a_run(tmp_path, procs=4, batch=1024), threads=4, own=4, cores=64)])
    assert (sized.cores, sized.measured_threads, sized.is_oversubscribed) == (64, 4, False)


@pytest.mark.parametrize("text", ["1e300", "1..1e300", "1e-300", "1e10", "9" * 400])
def test_a_range_that_no_link_has_is_refused(tmp_path, capsys, text):
    run = a_run(tmp_path)
    for option in ("--bandwidth-gb-s", "--within-node-gb-s"):
        assert f"{option} {text}: not a number from" in refusal(capsys, run, "--nodes", 2, *NETWORK[2:], option, text)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda record: record["samples"][0].update(value=0), "an all-reduce of 8 bytes in 0 s"),
        (lambda record: record["samples"][0].update(upper_quartile=0), "an all-reduce of 8 bytes in 0 s"),
        (lambda record: record["samples"][1].update(value=-1), "in -1 s"),
        (lambda record: record["samples"][1].update(value=float("nan")), "in nan s"),
        (lambda record: record["samples"][0].update(size_bytes=0), "an all-reduce of 0 bytes"),
        (lambda record: record.update(samples=[1]), "not what `hpcai500 micro --json` writes"),
        (lambda record: record.update(nodes=float("inf")), "not what `hpcai500 micro --json` writes"),
        (lambda record: record.update(nodes=9), "nodes and num_ranks are out of range"),
        (lambda record: record.update(num_ranks=10**400), "nodes and num_ranks are out of range"),
    ],
)
def test_a_file_of_all_reduces_that_none_can_be_is_refused(tmp_path, capsys, change, said):
    path = tmp_path / "micro.json"
    micro_file(path, 4, 4)
    edit_json(path, change)
    assert said in refusal(capsys, a_run(tmp_path), "--nodes", 2, "--network", path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda epoch: epoch.update(train_sec=0.0), "0 s of training"),
        (lambda epoch: epoch.update(eval_sec=-1.0), "-1 s of evaluation"),
        (lambda epoch: epoch.update(data_wait_sec=10.0), "10 s of waiting for data in 10 s"),
    ],
)
def test_times_that_no_run_took_are_refused(tmp_path, capsys, change, said):
    folder = a_run(tmp_path)
    edit_json(folder / "result.json", lambda result: [change(epoch) for epoch in result["epochs"]])
    error = refusal(capsys, folder, "--nodes", 2, *NETWORK)
    assert f"{folder}/result.json: epoch 1: " in error
    assert said in error


def to_model(**changes):
    return lambda folder: edit_log(folder, Key.MODEL, lambda event: event["value"].update(changes))


def to_layer(number, **changes):
    def change(folder):
        on_cpu(folder, threads=1, own=2, cores=2)
        edit_json(folder / "system.json", lambda system: system["nodes"][0]["layers"][number].update(changes))

    return change


def to_result(change):
    return lambda folder: edit_json(folder / "result.json", change)


LAYERS = {"layer_parameters": {"a": 3, "b": 4}, "num_parameters": 7, "layer_flops": {"a": 1.0}}


@pytest.mark.parametrize(
    ("damage", "file", "said"),
    [
        (to_model(**LAYERS | {"layer_parameters": [3, 4]}), "events.log", "hpcai500.model: value.layer_parameters: "),
        (to_model(**LAYERS | {"layer_parameters": {"a": 12, "b": -5}}), "events.log", "layer_parameters.b: "),
        (to_model(**LAYERS | {"layer_parameters": {"a": 3, "b": "x"}}), "events.log", "layer_parameters.b: "),
        (to_model(**LAYERS | {"layer_parameters": {}}), "events.log", "their sum is not num_parameters"),
        (to_model(**LAYERS | {"layer_flops": None}), "events.log", "layer_flops: "),
        (to_model(**LAYERS | {"layer_flops": {"a": -1.0}}), "events.log", "layer_flops.a: "),
        (to_model(num_tensors=0), "events.log", "num_tensors: "),
        (to_model(num_parameters=10**400), "events.log", "num_parameters: "),
        (to_layer("1", num_cores=float("inf")), "system.json", "layers.1.num_cores: "),
        (to_layer("1", num_cores=-2), "system.json", "layers.1.num_cores: "),
        (to_layer("6", num_threads=10**400), "system.json", "layers.6.num_threads: "),
        (to_layer("6", num_threads=-3), "system.json", "layers.6.num_threads: "),
        (to_layer("6", num_threads=0), "system.json", "layers.6.num_threads: "),
        (to_layer("6", num_threads="many"), "system.json", "layers.6.num_threads: "),
        (to_result(lambda result: result["epochs"][0].update(quality=-1.0)), "result.json", "epochs: qualities"),
        (to_result(lambda result: result["score"].update(achieved_quality=-1.0)), "result.json", "score: qualities"),
    ],
)
def test_figures_that_no_run_has_are_refused_with_their_file(tmp_path, capsys, damage, file, said):
    folder = a_run(tmp_path)
    damage(folder)
    error = refusal(capsys, folder, "--nodes", 2, *NETWORK)
    line = r":\d+" if file == "events.log" else ""
    assert re.search(f"{re.escape(str(folder / file))}{line}: ", error)
    assert said in error


def stop_after(folder, num_epochs):
    """As if the run had stopped at its target: epochs of 10 s of training and 2 s of evaluation."""

    def change(result):
        result["epochs"] = result["epochs"][:num_epochs]
        result["time"] |= {
            "total_sec": 12.0 * num_epochs,
            "train_sec": 10.0 * num_epochs,
            "eval_sec": 2.0 * num_epochs,
        }
        result["flops"]["total"] = num_epochs * result["epochs"][0]["flops"]

    edit_json(folder / "result.json", change)


def test_totals_are_of_as_many_epochs_as_the_run_trained(tmp_path):
    early = {"execution.stop_at_target": True}
    one, two = a_run(tmp_path, **early), a_run(tmp_path, nodes=2, batch=512, **early)
    stop_after(one, 1)
    stop_after(two, 3)
    prediction = predict(read_sizes([one, two]), [1, 2], FREE)
    assert prediction.num_epochs == 1
    total = prediction.points[0].total_sec
    assert total.likely == pytest.approx(12.0)
    assert total.low <= 12.0 <= total.high
    # what is measured at another size is held against as many epochs as were measured there
    (check,) = prediction.checks
    assert check.measured_total_sec == 36.0
    assert check.predicted_total_sec == pytest.approx(3 * prediction.points[1].total_sec.likely)
    said = prediction_text(prediction)
    assert "the run trained 1 of 90 epochs, up to its target: every total is for as many" in said
    assert "2 measured ranks trained 3 epochs: what their total and FLOPS are compared with is for as many" in said
    assert "epochs" not in prediction_text(predict(read_sizes([a_run(tmp_path, procs=2, batch=512)]), [1], FREE))


def test_a_success_without_epochs_is_refused(tmp_path, capsys):
    folder = a_run(tmp_path)
    edit_json(folder / "result.json", lambda result: result.update(epochs=[]))
    assert "no score, or no epochs" in refusal(capsys, folder, "--nodes", 2, *NETWORK)


def test_unfinished_runs_of_a_folder_are_left_out_and_named(tmp_path, capsys):
    whole = a_run(tmp_path)
    broken = unfinish(a_run(tmp_path, procs=2, batch=512))
    assert main(["predict", str(tmp_path), "--nodes", "2", *NETWORK]) == 0
    said = capsys.readouterr().out
    assert f"left out: {broken}: status aborted\n" in said
    assert "measured on 1 rank," in said
    assert main(["predict", str(tmp_path), "--nodes", "2", *NETWORK, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["left_out"] == [f"{broken}: status aborted"]
    # named itself, by its folder or by one of its files, or beside nothing that is finished
    for named in ([broken], [whole, broken], [tmp_path, broken], [broken / "run.json"]):
        assert "the step time needs a finished run" in refusal(capsys, *named, "--nodes", 2, *NETWORK)
    assert "no finished run next to it" in refusal(capsys, tmp_path / "1x2", "--nodes", 2, *NETWORK)


@pytest.mark.parametrize("options", [[], ["--json"], ["--plot", "out.svg"]])
def test_a_prediction_of_nothing_is_refused(tmp_path, capsys, options):
    error = refusal(capsys, a_run(tmp_path), "--nodes", "1,2", "--procs-per-node", 10**7, *NETWORK, *options)
    assert "1 node: 10,000,000 ranks, but 1,281,167 training samples" in error


def test_one_rank_is_not_ranks(tmp_path, capsys):
    one, two, plot = a_run(tmp_path), a_run(tmp_path, nodes=2, batch=512), tmp_path / "out.svg"
    fast = ["--bandwidth-gb-s", "1000", "--latency-us", "1"]
    for folder, said in ((one, "From 1 measured rank;"), (two, "From 2 measured ranks;")):
        assert main(["predict", str(folder), "--nodes", "2", *fast, "--plot", str(plot)]) == 0
        assert said in "".join(ET.fromstring(plot.read_text()).itertext())
    capsys.readouterr()
    assert main(["predict", str(tmp_path), "--nodes", "2", *fast]) == 0
    assert "check: 2 nodes, 2 ranks: " in capsys.readouterr().out


def take_times(folder, train, evaluate):
    """As if epochs had taken as long as `train` and `evaluate` say of their numbers, and nothing else any time."""
    path = folder / "result.json"
    result = json.loads(path.read_text())
    for epoch in result["epochs"]:
        epoch["train_sec"], epoch["eval_sec"] = train(epoch["epoch_num"]), evaluate(epoch["epoch_num"])
    total = sum(epoch["train_sec"] + epoch["eval_sec"] for epoch in result["epochs"])
    slower = result["time"]["total_sec"] / total
    result["time"] |= {
        "total_sec": total, "train_sec": sum(epoch["train_sec"] for epoch in result["epochs"]),
        "eval_sec": sum(epoch["eval_sec"] for epoch in result["epochs"]),
    }  # fmt: skip
    result["flops"]["flops"] *= slower
    result["score"]["vflops"] *= slower
    result["score"]["time_to_quality_sec"] = train(1) + evaluate(1)
    path.write_text(json.dumps(result))
    return result


@pytest.mark.parametrize("first", [6.0, 10.0, 30.0])
@pytest.mark.parametrize("slow", [10.0, 100.0])
@pytest.mark.parametrize("procs", [1, 4])
def test_the_band_at_the_measured_size_holds_the_measurement(tmp_path, first, slow, procs):
    folder = a_run(tmp_path, procs=procs, batch=256 * procs)
    result = take_times(
        folder, lambda epoch: first if epoch == 1 else slow if epoch % 5 == 0 else 10.0,
        lambda epoch: 9.0 if epoch % 5 == 0 else 2.0,
    )  # fmt: skip
    point = predict(read_sizes([folder]), [1], FREE).points[0]
    for band, measured in (
        (point.total_sec, result["time"]["total_sec"]),
        (point.flops, result["flops"]["flops"]),
        (point.vflops, result["score"]["vflops"]),
    ):
        assert band.low * (1 - 1e-6) <= measured <= band.high * (1 + 1e-6)
        assert band.low <= band.likely <= band.high


def test_one_slow_epoch_leaves_step_and_spread_as_they_are(tmp_path):
    folder = a_run(tmp_path)
    last = read_sizes([folder])[0].num_epochs
    assert last > 9
    usual = 10.0, 10.2, 9.8
    take_times(
        folder, lambda epoch: 20.0 if epoch == 1 else 100.0 if epoch == last else usual[epoch % 3], lambda _: 2.0
    )  # fmt: skip
    (sized,) = read_sizes([folder])
    assert sized.step_sec == pytest.approx(10 / 5004)
    # two thirds of the epochs lie 0.2 s off 10 s
    assert sized.spread == pytest.approx(1.4826 * 0.02)
    assert sized.first_sec == pytest.approx(10)


def test_a_first_epoch_that_was_shorter_is_so_at_every_size(tmp_path):
    folder = a_run(tmp_path)
    result = take_times(folder, lambda epoch: 6.0 if epoch == 1 else 10.0, lambda _: 2.0)
    (sized,) = read_sizes([folder])
    assert sized.first_sec == pytest.approx(-4.0)
    prediction = predict([sized], [1, 64], FREE, scaling="weak")
    one, many = prediction.points
    assert one.total_sec.likely == pytest.approx(result["time"]["total_sec"], rel=1e-6)
    epochs = len(result["epochs"])
    train = many.steps_per_epoch * many.step_sec.likely
    assert many.total_sec.likely == pytest.approx(epochs * many.epoch_sec.likely - 0.4 * train)
    edit_json(folder / "result.json", lambda record: record["epochs"][0].update(train_sec=1e-6))
    short = predict(read_sizes([folder]), [1, 4096], FREE).points
    assert all(point.total_sec.low > 0 for point in short)
    said = prediction_text(predict([sized._replace(total_sec=300.0)], [1], FREE))  # else less than a hundredth of it
    assert "the first epoch was 40% shorter than others: assumed at every size" in said
