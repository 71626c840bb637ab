"""Payloads: one per key, read as they were written, also from older logs; errors in hostile logs are one line."""

import json
from collections import Counter

import pytest

from hpcai500.errors import InputError
from hpcai500.events import payloads
from hpcai500.events.payloads import AT_LEAST_ONCE, ONCE, ONCE_AN_EPOCH, Epoch, EpochEvent, EpochReport, Evaluation
from hpcai500.events.reader import first, read_events
from hpcai500.events.typed import Payload, parsed, payload
from hpcai500.events.vocabulary import Key, RunStatus, Type
from hpcai500.events.writer import EventWriter, format_line

KINDS = [
    kind
    for kind in vars(payloads).values()
    if isinstance(kind, type) and issubclass(kind, Payload) and hasattr(kind, "key")
]
EPOCH = {
    "epoch_num": 1, "train_loss": 2.5, "quality": 0.5, "num_samples": 100, "flops": 1e9, "train_sec": 4.0,
    "eval_sec": 1.0, "data_wait_sec": 0.25, "learning_rate": 0.1, "energy_joules": None,
}  # fmt: skip
INTERRUPTION = {"epoch": 2, "step": 3, "graceful": True, "down_sec": 1.5, "lost_sec": 0.0}
STRUCTURE = {
    "digest": "d", "parameters_digest": "p", "num_parameters": 12, "num_tensors": 2,
    "layer_parameters": {"b": 9, "a": 3}, "layer_flops": {"a": 1.0}, "varying_layers": ["a"],
}  # fmt: skip
WRITTEN = [
    (payloads.CacheClear(value=False, metadata=payloads.Explanation(reason="none")), False, {"reason": "none"}),
    (payloads.InitStart(), None, {}),
    (payloads.InitStop(), None, {}),
    (payloads.StagingStart(), None, {}),
    (payloads.StagingStop(), None, {}),
    (payloads.SubmissionOrg(value="me"), "me", {}),
    (payloads.SubmissionPlatform(value="box"), "box", {}),
    (payloads.SubmissionDivision(value="open"), "open", {}),
    (payloads.SubmissionBenchmark(value="resnet"), "resnet", {}),
    (payloads.SubmissionStatus(value="research"), "research", {}),
    (payloads.Seed(value=2**32 - 1), 2**32 - 1, {}),
    (payloads.TrainSamples(value=64), 64, {}),
    (payloads.EvalSamples(value=23), 23, {}),
    (payloads.GlobalBatchSize(value=16), 16, {}),
    (payloads.GradientAccumulationSteps(value=4), 4, {}),
    (payloads.OptName(value="sgd"), "sgd", {}),
    (payloads.OptBaseLearningRate(value=0.1), 0.1, {}),
    (payloads.OptLearningRateWarmupEpochs(value=0.0), 0.0, {}),
    (payloads.OptWeightDecay(value=5e-5), 5e-5, {}),
    (payloads.RunStart(), None, {}),
    (payloads.RunStop.of(RunStatus.SUCCESS), None, {"status": "success"}),
    (payloads.EpochStart.of(1), None, {"epoch_num": 1}),
    (payloads.EpochStop.of(1), None, {"epoch_num": 1}),
    (payloads.EvalStart.of(1), None, {"epoch_num": 1}),
    (payloads.EvalStop.of(1), None, {"epoch_num": 1}),
    (payloads.EvalAccuracy.of(1, 0.5), 0.5, {"epoch_num": 1}),
    (
        payloads.Run(
            value=payloads.RunIdentity(
                run_id="r", experiment_digest="e", code_digest="c", hpcai500_version="1", torch_version="2"
            )
        ),
        {"run_id": "r", "experiment_digest": "e", "code_digest": "c", "hpcai500_version": "1", "torch_version": "2"},
        {},
    ),
    (payloads.Dataset(value=payloads.DatasetIdentity(synthetic=True)), {"synthetic": True}, {}),
    (payloads.Input(value=payloads.InputPipeline(layout="shards", mine=[1])), {"layout": "shards", "mine": [1]}, {}),
    (
        payloads.FlopsPerSample(
            value=payloads.SampleFlops(mean=3.0, standard_deviation=0.0, num_batches=1),
            metadata=payloads.Convention(convention="by hand"),
        ),
        {"mean": 3.0, "standard_deviation": 0.0, "num_batches": 1},
        {"convention": "by hand"},
    ),
    (payloads.Model(value=payloads.Structure(**STRUCTURE | {"varying_layers": ("a",)})), STRUCTURE, {}),
    (payloads.WarmUp(value=payloads.WarmUpTime(warm_up_sec=1.5)), {"warm_up_sec": 1.5}, {}),
    (
        EpochReport(
            value=Epoch(**EPOCH), metadata=Evaluation(epoch_num=1, num_samples=360.0, num_records=3, ap_cyclone=0.5)
        ),
        EPOCH,
        {"epoch_num": 1, "num_samples": 360.0, "num_records": 3, "ap_cyclone": 0.5},
    ),
    (
        payloads.Energy(value=payloads.EnergySources(sources=("rapl",), missing=())),
        {"sources": ["rapl"], "missing": []},
        {},
    ),
    (
        payloads.PeakMemory(value=payloads.MostBytes(host_bytes=1, device_bytes=None)),
        {"host_bytes": 1, "device_bytes": None},
        {},
    ),
    (payloads.Interrupted.of(2, 3), {"epoch": 2, "step": 3}, {"epoch_num": 2}),
    (
        payloads.Resumed(value=payloads.Restart(**INTERRUPTION, passed_over=("a: torn",))),
        {**INTERRUPTION, "passed_over": ["a: torn"]},
        {},
    ),
    (
        payloads.ResumedFrom(value=payloads.Origin(run="/r", epoch=2, step=3)),
        {"epoch": 2, "step": 3, "run": "/r"},
        {},
    ),
    (payloads.RunFailure.of("it is infinite", "diverged"), "it is infinite", {"status": "diverged"}),
    (
        payloads.StatedLayer(value={"cpu_model": "x"}, metadata=payloads.LayerNumber(layer=1)),
        {"cpu_model": "x"},
        {"layer": 1},
    ),
]
NAMES = [payload.key.value for payload, _, _ in WRITTEN]


def test_each_key_has_one_payload():
    assert Counter(kind.key for kind in KINDS) == Counter(Key)
    assert Counter(NAMES) == Counter(key.value for key in Key)


def test_how_often_a_key_stands_is_said_once():
    assert len({*ONCE, *AT_LEAST_ONCE, *ONCE_AN_EPOCH}) == len(ONCE) + len(AT_LEAST_ONCE) + len(ONCE_AN_EPOCH) - 1
    assert {*AT_LEAST_ONCE} & {*ONCE_AN_EPOCH} == {Key.EVAL_ACCURACY}
    fields = {kind.key: kind.model_fields["metadata"].annotation for kind in KINDS}
    of_epoch = {key for key, model in fields.items() if "epoch_num" in getattr(model, "model_fields", ())}
    assert of_epoch == {*ONCE_AN_EPOCH, Key.EPOCH, Key.INTERRUPTED}


@pytest.mark.parametrize(("given", "value", "metadata"), WRITTEN, ids=NAMES)
def test_what_is_written_is_what_is_read(tmp_path, given, value, metadata):
    path = tmp_path / "events.log"
    writer = EventWriter(path)
    writer.log(given)
    writer.close()
    record = json.loads(path.read_text().partition(" ")[2])
    kind = {Key.EPOCH_START: Type.START, Key.EPOCH_STOP: Type.END, Key.RUN_STOP: Type.END}.get(given.key)
    assert kind is None or record["event_type"] == kind
    assert (record["key"], record["value"]) == (given.key, value)
    place = {name: record["metadata"].pop(name) for name in ("file", "lineno")}
    assert place["file"] == "test_payloads.py"
    assert record["metadata"] == metadata
    found = payload(read_events(path), type(given))
    assert found.value == given.value
    assert found.written()[1] | place == given.written()[1] | place


def test_the_keys_of_a_record_keep_their_order():
    value, metadata = next(payload for payload, _, _ in WRITTEN if payload.key is Key.EPOCH).written()
    assert list(value) == list(EPOCH)
    assert list(metadata) == ["epoch_num", "num_samples", "num_records", "ap_cyclone"]
    value, _ = next(payload for payload, _, _ in WRITTEN if payload.key is Key.MODEL).written()
    assert list(value["layer_parameters"]) == ["b", "a"]


def event(tmp_path, key, value, metadata):
    path = tmp_path / "events.log"
    line = format_line(key, Type.POINT, value, metadata, time_ms=1, file="a.py", lineno=3)
    path.write_text(f"noise\n{line}\n")
    return first(read_events(path), key)


@pytest.mark.parametrize(
    ("key", "value", "metadata", "kind"),
    [
        (Key.EPOCH, {k: v for k, v in EPOCH.items() if k != "data_wait_sec"}, {"epoch_num": 1}, EpochReport),
        (Key.MODEL, {"num_parameters": 1, "layer_flops": {}}, {}, payloads.Model),
        (Key.FLOPS_PER_SAMPLE, {"mean": 1, "standard_deviation": 0}, {"convention": "x"}, payloads.FlopsPerSample),
        (Key.RESUMED, INTERRUPTION, {}, payloads.Resumed),
        (Key.PEAK_MEMORY, {}, {}, payloads.PeakMemory),
        (Key.INPUT, {}, {}, payloads.Input),
        (Key.RUN_START, "at last", {"anything": 1}, payloads.RunStart),
        (Key.SEED, 7, {"said by": "another program"}, payloads.Seed),
        (Key.FAILURE, "out of memory", {}, payloads.RunFailure),
    ],
)  # fmt: skip
def test_older_logs_may_say_less_and_other_programs_more(tmp_path, key, value, metadata, kind):
    assert parsed(event(tmp_path, key, value, metadata), kind)


@pytest.mark.parametrize(
    ("key", "value", "metadata", "kind", "said"),
    [
        (Key.SEED, "7", {}, payloads.Seed, "seed: value: input should be a valid integer, not '7'"),
        (Key.SEED, True, {}, payloads.Seed, "seed: value: input should be a valid integer"),
        (Key.SEED, None, {}, payloads.Seed, "seed: value: input should be a valid integer, not None"),
        (Key.RUN_STOP, None, {}, payloads.RunStop, "run_stop lacks metadata.status"),
        (Key.RUN_STOP, None, {"status": "fine"}, payloads.RunStop, "should be 'success' or 'aborted', not 'fine'"),
        (Key.EVAL_STOP, None, {"epoch_num": [1]}, payloads.EvalStop, "metadata.epoch_num: input should be a valid"),
        (Key.EVAL_STOP, None, {"epoch_num": 0}, EpochEvent, "metadata.epoch_num: input should be greater than"),
        (Key.EPOCH, [], {"epoch_num": 1}, EpochReport, "hpcai500.epoch: value: input should be an object"),
        (Key.EPOCH, {}, {"epoch_num": 1}, EpochReport, "lacks value.epoch_num, value.train_loss, value.quality"),
        (Key.EPOCH, EPOCH, {"epoch_num": 2}, EpochReport, "epoch_num is 1, in its metadata 2"),
        (Key.EPOCH, EPOCH | {"\x1b[2J": 1}, {"epoch_num": 1}, EpochReport, "value.\ufffd[2J: no such key"),
        (Key.EPOCH, EPOCH | {"flops": "\x1b[2J" * 999}, {"epoch_num": 1}, EpochReport, "value.flops: input should"),
        (Key.MODEL, {"num_parameters": 1, "layer_flops": {"a": "b"}}, {}, payloads.Model, "value.layer_flops.a: "),
        (Key.DATASET, {"digest": 7}, {}, payloads.Dataset, "value.digest: input should be a valid string, not 7"),
        (Key.INPUT, {"loader_threads": -1}, {}, payloads.Input, "value.loader_threads: "),
        (Key.ENERGY, {"sources": "rapl", "missing": []}, {}, payloads.Energy, "value.sources: "),
        (Key.RESUMED, {"epoch": 1}, {}, payloads.Resumed, "lacks value.step, value.graceful, value.down_sec"),
        (Key.FAILURE, {"a": 1}, {}, payloads.RunFailure, "hpcai500.failure: value: input should be a valid string"),
        (Key.LAYER, {}, {"layer": 10}, payloads.StatedLayer, "metadata.layer: input should be less than or equal"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_one_line_with_file_line_and_key(tmp_path, key, value, metadata, kind, said):
    with pytest.raises(InputError) as raised:
        parsed(event(tmp_path, key, value, metadata), kind)
    text = str(raised.value)
    assert text.startswith(f"{tmp_path / 'events.log'}:2: {key.value}")
    assert said in text
    assert text.isprintable()
    assert len(text) < 500


BARE = (payloads.InitStart, payloads.InitStop, payloads.StagingStart, payloads.StagingStop, payloads.RunStart)
HOSTILE = [
    None, True, -1, 10**400, 1e308, "", "\x1b[2J" * 50_000, "\ud800", [], {}, [[]] * 1_000, {"epoch_num": {}},
    {str(n): None for n in range(1_000)}, {"value": {"value": {}}}, {"\n:::MLLOG": "\n"},
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS, ids=[kind.key.value for kind in KINDS])
def test_no_value_of_any_payload_gives_more_than_one_line(tmp_path, kind):
    refused = []
    for hostile in HOSTILE:
        for metadata in ({}, {"epoch_num": hostile, "status": hostile, "layer": hostile}):
            try:
                parsed(event(tmp_path, kind.key, hostile, metadata), kind)
            except InputError as error:
                refused.append(str(error))
    assert all(text.startswith(f"{tmp_path / 'events.log'}:2: {kind.key.value}") for text in refused)
    assert all(text.isprintable() and len(text) < 600 for text in refused)
    assert refused or kind in BARE


def test_a_line_cannot_say_where_it_stands(tmp_path):
    path = tmp_path / "events.log"
    path.write_text(
        ':::MLLOG {"time_ms": 1, "event_type": "POINT_IN_TIME", "key": "seed", "source": "/x", "line": 9}\n'
    )
    event = read_events(path)[0]
    assert (event.source, event.line) == (path, 1)
