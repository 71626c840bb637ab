import pytest
import torch

from hpcai500.events.payloads import Epoch
from hpcai500.files import read_json, write_json
from hpcai500.report.run import run_text
from hpcai500.score.record.result import derive, read_result, write_result
from hpcai500.train import journal
from hpcai500.train.loading import BatchTimer


class Clock:
    def __init__(self):
        self.now = 100.0

    def perf_counter(self):
        return self.now


def test_only_what_passes_inside_the_loader_counts_as_waiting(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("hpcai500.train.loading.time", clock)

    def batches():
        for number in range(3):
            clock.now += 0.25
            yield number
        clock.now += 0.5  # to learn that there is no more

    timed = BatchTimer(batches(), waited_sec=2.0)  # of an earlier start
    seen = []
    for batch in timed:
        clock.now += 10.0
        seen.append(batch)
    assert seen == [0, 1, 2]
    assert timed.waited_sec == 2.0 + 3 * 0.25 + 0.5


def test_a_run_shows_how_long_its_training_waited_for_data(make_spec, write_run):
    folder = write_run(make_spec(), [0.5, 0.9], waits=[1.5, 0.75])  # of 3.75 s of training each
    write_result(folder)
    result = read_result(folder / "result.json")
    assert [epoch.data_wait_sec for epoch in result.epochs] == [1.5, 0.75]
    assert "training waited 2.25 s for data (30.00%; at most 40.00% of an epoch)" in run_text(result)


def test_a_result_from_before_waiting_was_measured_reads_as_it_did(make_spec, write_run):
    folder = write_run(make_spec(), [0.5, 0.9])
    write_result(folder)
    record = read_json(folder / "result.json")
    for epoch in record["epochs"]:
        del epoch["data_wait_sec"]
    write_json(folder / "result.json", record)
    result = read_result(folder / "result.json")
    assert result == derive(folder)
    assert "waited" not in run_text(result)


def test_the_bar_shows_the_share_of_waiting_since_it_was_last_drawn(make_spec, monkeypatch):
    clock = Clock()
    monkeypatch.setattr(journal, "time", clock)
    bar = journal.ProgressBar(make_spec())
    shown = []
    monkeypatch.setattr(bar._bar, "set_postfix_str", shown.append)
    for waited_sec in (0.5, 0.75, 0.1):  # the third is of a new epoch
        clock.now += 1.0
        bar.step(1, torch.zeros(()), waited_sec)
    bar.close()
    assert [text.rsplit(", ", 1)[1] for text in shown] == [
        f"{share} waiting for data" for share in ("50%", "25%", "10%")
    ]


def test_an_epoch_s_line_says_how_much_of_it_was_waiting(make_spec):
    row = Epoch(
        epoch_num=1, train_loss=1.0, quality=0.5, num_samples=100, flops=1e9, train_sec=4.0, eval_sec=1.0,
        data_wait_sec=1.0, learning_rate=0.1, energy_joules=None,
    )  # fmt: skip
    assert "train 4.0 s (25.0% waiting for data)  eval 1.0 s" in journal.epoch_line(row, make_spec())


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt()])
def test_an_error_of_the_loader_passes_through(error):
    def batches():
        yield 1
        raise error

    timed = BatchTimer(batches())
    assert next(timed) == 1
    with pytest.raises(type(error)):
        next(timed)
