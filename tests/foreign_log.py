"""The log of a program that knows nothing of this package, line by line, and ways to spoil it."""

import json

START_MS = 1_700_000_000_000
DIGITS = "3734a502b666d61c-c4b59446b52a29e0"
CONVENTION = "convolutions and matrix products as executed, forward and backward, MAC = 2"
LAYERS = {
    1: {"cpu_model": "Abacus 3000"}, 2: {"kernel": "none"}, 3: {"none": "one process"}, 4: {"none": "beads"},
    5: {"framework": "awk 5.2"}, 6: {"world_size": 1, "precision": "fp32", "device": "cpu"},
    7: {"model": "a matrix"}, 8: {"momentum": 0.5},
    9: {"metric": "top-1 accuracy", "target_quality": 0.85, "num_epochs": 4},
}  # fmt: skip


def foreign_lines(*, seed=0, quality=0.9, system="abacus", layers=None, epoch_sec=10.0):
    """Records of a run that keeps every rule: a tenth of a second of evaluation an epoch."""
    records, now = [], START_MS

    def add(key, value=None, event_type="POINT_IN_TIME", **metadata):
        records.append({
            "namespace": "", "time_ms": round(now), "event_type": event_type, "key": key, "value": value,
            "metadata": metadata,
        })  # fmt: skip

    add("cache_clear", True)
    add("init_start", event_type="INTERVAL_START")
    for key, value in {
        "submission_org": "me", "submission_platform": system, "submission_division": "open",
        "submission_benchmark": "resnet", "submission_status": "research", "seed": seed, "train_samples": 1437,
        "eval_samples": 360, "global_batch_size": 64, "opt_name": "guessing", "opt_base_learning_rate": 0.1,
        "opt_learning_rate_warmup_epochs": 0, "opt_weight_decay": 0,
        "hpcai500.dataset": {"digest": DIGITS},
        "hpcai500.model": {"num_parameters": 30_730, "layer_flops": {"matrix": 61_440}},
    }.items():  # fmt: skip
        add(key, value)
    count = {"mean": 3 * 61_440, "standard_deviation": 0}
    add("hpcai500.flops_per_sample", count, convention=CONVENTION)
    for number, stated in (LAYERS if layers is None else layers).items():
        add("hpcai500.layer", stated, layer=number)
    add("init_stop", event_type="INTERVAL_END")
    add("run_start", event_type="INTERVAL_START")
    for epoch in range(1, 5):
        add("epoch_start", event_type="INTERVAL_START", epoch_num=epoch)
        now += epoch_sec * 1_000
        add("epoch_stop", event_type="INTERVAL_END", epoch_num=epoch)
        add("eval_start", event_type="INTERVAL_START", epoch_num=epoch)
        now += 100
        add("eval_accuracy", quality, epoch_num=epoch)
        add("eval_stop", event_type="INTERVAL_END", epoch_num=epoch)
        row = {
            "epoch_num": epoch, "train_loss": (1 + seed / 100) / epoch, "quality": quality, "num_samples": 1408,
            "flops": 1408 * 3 * 61_440, "train_sec": epoch_sec, "eval_sec": 0.1, "learning_rate": 0.1,
            "energy_joules": None,
        }  # fmt: skip
        add("hpcai500.epoch", row, epoch_num=epoch, num_samples=360)
    add("run_stop", event_type="INTERVAL_END", status="success")
    return records


def text_of(records):
    return "".join(f":::MLLOG {json.dumps(record)}\n" for record in records)


def change(key, /, **fields):
    """A spoiler: replace fields of the first record of `key`."""

    def spoil(records):
        next(record for record in records if record["key"] == key).update(fields)

    return spoil


def omit(key, field, name):
    """A spoiler: the first record of `key` has no `name` in its `field`."""

    def spoil(records):
        record = next(record for record in records if record["key"] == key)
        record[field] = {inner: value for inner, value in record[field].items() if inner != name}

    return spoil


def drop(key):
    def spoil(records):
        records[:] = [record for record in records if record["key"] != key]

    return spoil
