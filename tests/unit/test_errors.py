import inspect

import pytest

from hpcai500 import errors
from hpcai500.errors import SpecError
from hpcai500.score.timing import Timing
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
