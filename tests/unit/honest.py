"""A run's folder made by hand that keeps every rule, and ways to break one."""

import json
from pathlib import Path

from hpcai500.events import payloads as events
from hpcai500.events.vocabulary import Key, RunStatus, Type
from hpcai500.events.writer import format_line
from hpcai500.score.record.manifest import seal
from hpcai500.score.record.nodes import group_nodes
from hpcai500.score.record.result import write_result
from hpcai500.score.record.valid_flops import CONVENTION
from hpcai500.spec.reference import find_reference
from hpcai500.spec.run import RunSpec
from hpcai500.system.capture import programming_model, workload_layers
from hpcai500.train.journal import log_hyper_parameters, log_submission

START_MS = 1_700_000_000_000


class Log:
    """A journal at times of our choosing."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.time_ms = START_MS

    def log(self, payload):
        self._add(payload.event_type, payload.key, *payload.written())

    def point(self, key, value=None, **metadata):
        self._add(Type.POINT, key, value, metadata)

    def _add(self, event_type, key, value, metadata):
        place = {"time_ms": self.time_ms, "file": "by_hand.py", "lineno": 1}
        self.lines.append(format_line(key, event_type, value, metadata, **place))


def honest_run(
    spec: RunSpec, qualities=None, *, torch="2.15.0+cu130", dataset="d" * 16, structure=None, flops_per_sample=None
) -> Path:
    """All of a run's files, as the engine writes them: ten seconds of training and two of evaluation an epoch."""
    problem = spec.settings.problem
    if qualities is None:
        right = round(problem.num_eval_samples * (problem.target_quality + 0.05))
        qualities = [right / problem.num_eval_samples] * problem.num_epochs
    reference = find_reference(spec.workload.benchmark, spec.problem) or find_reference("resnet", "mini")
    known = reference.known
    structure = structure or {"digest": "0" * 64, "num_tensors": 161, **known.model.model_dump(mode="json")}
    per_sample = flops_per_sample or known.flops_per_sample
    dataset = {"synthetic": False, "digest": known.dataset_digest or dataset}
    spec.write()
    log = Log()
    log_submission(log, spec)
    log.point(Key.DATASET, dataset)
    log.point(
        Key.FLOPS_PER_SAMPLE, {"mean": per_sample, "standard_deviation": 0.0, "num_batches": 1}, convention=CONVENTION
    )
    log.point(Key.MODEL, structure)
    log.point(Key.ENERGY, {"sources": [], "missing": ["RAPL: none"]})
    optimizer, batch = spec.settings.optimizer, spec.settings.batch
    log_hyper_parameters(
        log, spec, optimizer.learning_rate * batch.global_batch_size / optimizer.reference_batch_size
    )
    log.log(events.InitStop())
    log.log(events.RunStart())
    num_samples = spec.steps_per_epoch * spec.settings.batch.global_batch_size
    train_ms = 10_000 + 10 * spec.seed
    for epoch, quality in enumerate(qualities, start=1):
        log.log(events.EpochStart.of(epoch))
        log.time_ms += train_ms
        log.log(events.EpochStop.of(epoch))
        log.log(events.EvalStart.of(epoch))
        log.time_ms += 2_000
        log.log(events.EvalAccuracy.of(epoch, quality))
        log.log(events.EvalStop.of(epoch))
        row = {
            "epoch_num": epoch, "train_loss": (1 + spec.seed / 100) / epoch, "quality": quality,
            "num_samples": num_samples,
            "flops": num_samples * per_sample, "train_sec": train_ms / 1_000, "eval_sec": 2.0, "learning_rate": 0.1,
            "energy_joules": None,
        }  # fmt: skip
        records = {"num_records": problem.num_eval_samples} if known.keeps_predictions else {}
        log.point(Key.EPOCH, row, epoch_num=epoch, num_samples=problem.num_eval_samples, **records)
    log.log(events.RunStop.of(RunStatus.SUCCESS))
    log.point(Key.PEAK_MEMORY, {"host_bytes": 1, "device_bytes": None})
    (spec.folder / "events.log").write_text("\n".join(log.lines) + "\n")
    edit_log(spec.folder, Key.RUN, lambda record: record["value"].update(torch_version=torch))
    layers = {
        "1": {"cpu_model": "Test CPU", "gpus": []}, "2": {"kernel": "6.1"}, "3": {"gloo": True}, "4": {"cuda": None},
        "5": {"torch": torch, "torchvision": "0.29.2", "horovod": None}, "6": programming_model(spec),
    }  # fmt: skip
    system = group_nodes([{"host": f"h{number}", "layers": layers} for number in range(spec.nodes)])
    write_json(spec.folder / "system.json", system | {"layers": workload_layers(spec, structure, dataset)})
    if known.keeps_predictions:
        write_json(spec.folder / "evaluation.json", [{"index": i} for i in range(problem.num_eval_samples)])
    write_result(spec.folder)
    seal(spec.folder)
    return spec.folder


def write_json(path: Path, value) -> None:
    path.write_text(json.dumps(value))


def edit_json(path: Path, change) -> None:
    """Load, `change` in place, store."""
    value = json.loads(path.read_text())
    change(value)
    write_json(path, value)


def edit_log(folder: Path, key: Key, change, number: int = 0) -> None:
    """`change` the record of the event `number` of `key` in place; None as its result drops the line."""
    path, lines, seen = folder / "events.log", [], 0
    for line in path.read_text().splitlines():
        token, _, text = line.partition(" ")
        record = json.loads(text)
        if record["key"] == key:
            keep = change(record) is not False if seen == number else True
            seen += 1
            if not keep:
                continue
        lines.append(f"{token} {json.dumps(record)}")
    path.write_text("\n".join(lines) + "\n")


def reseal(folder: Path) -> None:
    """What a careful forger does: derive result and manifest again."""
    (folder / "manifest.json").unlink(missing_ok=True)
    write_result(folder)
    seal(folder)
