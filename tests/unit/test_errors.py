import inspect
import pickle
from pathlib import Path

import pytest

from hpcai500 import errors
from hpcai500.errors import SpecError
from hpcai500.score.record.timing import Timing
from hpcai500.spec.models import parse


def test_every_error_has_an_exit_code_of_the_contract():
    classes = [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, errors.HpcAi500Error)]
    assert {c.exit_code for c in classes} == {1, 2, 3, 70, 75}


def test_the_nearest_key_is_named_even_when_only_its_table_is_wrong():
    known = ["optimizer.momentum", "schedule.name"]
    assert errors.nearest("optimizer.momentun", known) == "did you mean 'optimizer.momentum'?"
    assert errors.nearest("x.momentum", known) == "did you mean 'optimizer.momentum'?"
    assert errors.nearest("zzzzzz", known) == "choose from optimizer.momentum, schedule.name"


def test_a_failure_survives_its_way_through_a_log():
    line = "[rank1]: noise " + errors.format_failure(errors.DataError("file x: broken", "replace it"), rank=1)
    assert errors.parse_failure(line) == errors.Failure(1, 2, "file x: broken", "replace it")
    assert errors.parse_failure(line[:-5]) is None
    assert errors.parse_failure("an ordinary line") is None


def test_a_wrong_value_of_any_length_fits_a_line():
    with pytest.raises(SpecError, match=r"^file: ended_ms: .*, not \[1, 1") as caught:
        parse(Timing, {"started_ms": 1.0, "ended_ms": [1] * 10_000}, "file")
    assert len(str(caught.value)) < 250


def test_an_error_says_where_as_a_value_and_names_it_by_another_name():
    error = errors.InputError("not a valid event", "see the log", at=Path("/tmp/u/10/runs/a/events.log"), line=7)
    error.relocate(Path("/tmp/u/1"), Path("one.zip"))  # no folder that it lies in
    assert error.message == "/tmp/u/10/runs/a/events.log:7: not a valid event"
    error.relocate(Path("/tmp/u/10"), Path("ten.zip"))
    assert str(error) == "ten.zip/runs/a/events.log:7: not a valid event; see the log"
    assert pickle.loads(pickle.dumps(error)).message == error.message
    assert errors.InputError("no place").message == "no place"


def test_only_a_librarys_error_may_be_the_echo_of_another():
    told = [errors.parse_failure(errors.format_failure(kind("gloo: lost"), 0)) for kind in (
        errors.LibraryError, errors.MachineError,
    )]  # fmt: skip
    assert [failure.of_library for failure in told] == [True, False]
