import inspect

from hpcai500 import errors


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
