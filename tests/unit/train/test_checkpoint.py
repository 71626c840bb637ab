import json

import pytest
import torch

from hpcai500.errors import HpcAi500Error
from hpcai500.train.checkpoint import Checkpoints, Record, find_newest
from hpcai500.train.state import RankState, RunState


def record(epoch, step=0, **fields):
    given = {
        "experiment_digest": "e", "seed": 0, "epoch": epoch, "step": step, "events_bytes": 10, "time_ms": 1,
        "graceful": False, **fields,
    }  # fmt: skip
    return Record(**given)


def newest(folder):
    return find_newest(folder, lambda record: "of another run" if record.seed != 0 else "")


def written(folder, *places):
    checkpoints = Checkpoints(folder)
    for epoch, step in places:
        checkpoints.write({"epoch": epoch, "weight": torch.full((1000,), float(epoch))}, record(epoch, step))
    checkpoints.wait()
    return folder


def test_the_two_newest_are_kept_and_the_newest_is_found(tmp_path):
    written(tmp_path / "c", (2, 0), (3, 0), (10, 4))
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == [
        "epoch0003-step000000.json", "epoch0003-step000000.pt",
        "epoch0010-step000004.json", "epoch0010-step000004.pt",
    ]  # fmt: skip
    found = newest(tmp_path / "c")
    assert (found.record.epoch, found.record.step, found.passed_over) == (10, 4, ())
    assert torch.equal(found.state["weight"], torch.full((1000,), 10.0))


def test_a_copy_is_stored_so_that_training_may_go_on_at_once(tmp_path):
    weight = torch.zeros(1_000_000)
    checkpoints = Checkpoints(tmp_path / "c")
    checkpoints.write({"weight": weight}, record(1))
    weight += 1
    checkpoints.wait()
    assert newest(tmp_path / "c").state["weight"].sum() == 0


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (lambda pt: pt.write_bytes(pt.read_bytes()[:-1]), "bytes of"),
        (lambda pt: pt.write_bytes(pt.read_bytes()[:-1] + b"\x7f"), "its checksum differs"),
        (lambda pt: pt.unlink(), "its file is missing"),
        (lambda pt: pt.with_suffix(".json").write_text("{"), "not valid JSON"),
        (lambda pt: edit(pt, epoch=4), "its record was altered"),
        (lambda pt: edit(pt, seed=1), "of another run"),
    ],
)
def test_a_spoilt_checkpoint_is_passed_over_with_the_reason(tmp_path, harm, reason):
    folder = written(tmp_path / "c", (2, 0), (3, 0))
    harm(folder / "epoch0003-step000000.pt")
    found = newest(folder)
    assert found.record.epoch == 2
    (said,) = found.passed_over
    assert said.startswith("epoch0003-step000000: ") or "epoch0003" in said
    assert reason in said


def edit(pt, **fields):
    path = pt.with_suffix(".json")
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


class Evil:
    def __reduce__(self):
        return (print, ("code of a stranger runs",))


def test_a_checkpoint_that_would_run_code_is_never_loaded(tmp_path, capsys):
    checkpoints = Checkpoints(tmp_path / "c")
    checkpoints.write({"state": Evil()}, record(1))
    checkpoints.wait()
    found = newest(tmp_path / "c")
    assert found.state is None
    assert "cannot be loaded" in found.passed_over[0]
    assert capsys.readouterr().out == ""


def test_what_the_file_system_says_reaches_the_run(tmp_path):
    (tmp_path / "c").write_text("a file where the folder should be")
    checkpoints = Checkpoints(tmp_path / "c")
    checkpoints.write({}, record(1))
    with pytest.raises(HpcAi500Error, match="c/epoch0001"):
        checkpoints.wait()


def test_a_state_is_read_back_as_it_was_and_another_versions_is_refused(tmp_path):
    rank = RankState(
        generator=torch.get_rng_state(), device_generator=None, loss_sum=1.5, data_wait_sec=0.25,
        buffers={"mean": torch.ones(2)},
    )  # fmt: skip
    state = RunState(
        model={"weight": torch.arange(3.0)}, optimizer={"state": {}}, scaler={}, train_sec=2.0, energy_joules=3.0,
        borrowed_steps=4, ranks=(rank, rank),
    )  # fmt: skip
    checkpoints = Checkpoints(tmp_path / "c")
    checkpoints.write(state.record(), record(1))
    checkpoints.wait()
    stored = newest(tmp_path / "c").state
    found = RunState.of_record(dict(stored))
    assert (found.train_sec, found.energy_joules, found.borrowed_steps) == (2.0, 3.0, 4)
    assert torch.equal(found.model["weight"], state.model["weight"])
    assert [(own.loss_sum, own.data_wait_sec, own.buffers["mean"].tolist()) for own in found.ranks] == [
        (1.5, 0.25, [1.0, 1.0])
    ] * 2
    for changed in ({key: value for key, value in stored.items() if key != "borrowed_steps"}, stored | {"more": 1}):
        with pytest.raises(TypeError, match="borrowed_steps|more"):
            RunState.of_record(changed)
