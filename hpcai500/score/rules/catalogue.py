"""Every rule that a result is checked against. The number's first digit names the module: rule 4.2 is in
`rules_4_layers.py`. The table of docs/levels-and-rules.md is made from this (tools/tables.py).
"""

from typing import Any, TypeVar

from pydantic import field_validator

from hpcai500.errors import HpcAi500Error
from hpcai500.score.record.source import SourceName
from hpcai500.score.rules import rules_1_record, rules_2_clock, rules_3_training, rules_4_layers, rules_5_set
from hpcai500.score.rules.rule import FileRule, Rule, RunRule, SetRule
from hpcai500.spec.models import Frozen

_MODULES = (rules_1_record, rules_2_clock, rules_3_training, rules_4_layers, rules_5_set)

Kind = TypeVar("Kind", bound=Rule[Any])


def _rules(kind: type[Kind]) -> tuple[Kind, ...]:
    found = [value for module in _MODULES for value in vars(module).values() if isinstance(value, kind)]
    return tuple(sorted(found, key=lambda rule: rule.number))


def by_number(*rules: Rule[Any]) -> dict[str, Rule[Any]]:
    """Rules by number, in order.

    Raises:
        HpcAi500Error: if two rules have the same number.
    """
    found: dict[str, Rule[Any]] = {}
    for rule in sorted(rules, key=lambda rule: rule.number):
        if rule.number in found:
            raise HpcAi500Error(f"two rules have the number {rule.number}")
        found[rule.number] = rule
    return found


FILE_RULES, RUN_RULES, SET_RULES = _rules(FileRule), _rules(RunRule), _rules(SetRule)
RULES = by_number(*FILE_RULES, *RUN_RULES, *SET_RULES)


class Breach(Frozen):
    rule: str
    """Rule number, such as `3.2`; only those of the catalogue exist."""
    run: SourceName
    """The run's folder; for a rule about several runs, the folder around the first one."""
    message: str

    @field_validator("rule")
    @classmethod
    def _is_in_the_catalogue(cls, number: str) -> str:
        if number not in RULES:
            raise ValueError(f"no rule has the number {number}")
        return number
