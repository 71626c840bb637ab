"""One seed is trained once: kept if it is done, continued only if asked."""

import pytest

from hpcai500.errors import OccupiedError, RankError, SpecError
from hpcai500.runs.start import claim, finished, run_once
from hpcai500.score.record.result import read_result, write_result
from hpcai500.spec.run import read_run


@pytest.fixture
def said():
    return []


def never(spec):
    raise AssertionError(f"{spec.folder} was started")


def test_a_finished_run_is_kept_and_nothing_starts(make_spec, write_run, said):
    spec = make_spec()
    result = write_result(write_run(spec, [0.5, 0.9]))
    assert run_once(spec, never, say=said.append) == (result, True)
    assert said == [f"seed 0: done already, kept: {spec.folder}"]


def test_a_new_run_is_claimed_before_it_starts_and_has_a_result_afterwards(make_spec, write_run, said):
    spec = make_spec(seed=4)

    def start(one):
        assert read_run(one.folder / "run.json") == spec
        (one.folder / "events.log").write_text(log)

    log = (write_run(make_spec(seed=4, output=f"{spec.output}-other"), [0.9]) / "events.log").read_text()
    outcome = run_once(spec, start, say=said.append)
    assert not outcome.is_kept
    assert outcome.result == read_result(spec.folder / "result.json")
    assert said[0].startswith("seed 4: Image Classification, mini problem, free level, 1 rank, fp32: ")


def test_a_run_that_fails_has_a_result_too(make_spec, said):
    def start(one):
        raise RankError("rank 0 died")

    spec = make_spec()
    with pytest.raises(RankError):
        run_once(spec, start, say=said.append)
    assert read_result(spec.folder / "result.json").status != "success"
    assert finished(spec.folder) is None


def test_an_unfinished_run_is_continued_only_if_asked_and_only_by_its_own_launcher(make_spec):
    spec = make_spec()
    claim(spec, resume=False)
    with pytest.raises(OccupiedError, match="--resume"):
        claim(spec, resume=False)
    claim(spec, resume=True)
    with pytest.raises(SpecError, match="was started by local, not by mpirun; continue with --launcher local"):
        claim(make_spec(launcher="mpirun"), resume=True)
