"""The catalogue of rules: numbers, sentences, sources and functions in one place."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from hpcai500.errors import HpcAi500Error
from hpcai500.score.rules.catalogue import RULES, Breach, by_number
from hpcai500.score.rules.rule import run_rule


def test_the_catalogue_has_these_rules():
    assert list(RULES) == [
        "1.1", "1.2", "1.3", "1.4", "1.5", "1.6", "1.7",
        "2.1", "2.2", "2.3", "2.4",
        "3.1", "3.2", "3.3", "3.4", "3.5",
        "4.1", "4.2", "4.3", "4.4", "4.5", "4.6", "4.7",
        "5.1", "5.2", "5.3", "5.4",
    ]  # fmt: skip


def test_the_first_digit_of_a_rule_names_the_module_of_its_function():
    for number, rule in RULES.items():
        assert rule.check.__module__.split(".")[-1].startswith(f"rules_{number[0]}_")


def test_every_rule_has_a_sentence_and_a_source():
    for rule in RULES.values():
        assert rule.sentence.endswith((".", ".)"))
        assert rule.source


def test_a_breach_of_a_rule_that_does_not_exist_is_refused():
    with pytest.raises(ValidationError, match=r"no rule has the number 4\.9"):
        Breach(rule="4.9", run=Path("run"), message="wrong")


def test_two_rules_of_one_number_are_refused():
    again = run_rule("4.2", "Another.", source="ours")(lambda run: iter(()))
    with pytest.raises(HpcAi500Error, match=r"two rules have the number 4\.2"):
        by_number(RULES["4.2"], again)
