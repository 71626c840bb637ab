"""The rule and the report format that CONTRIBUTING.md shows work exactly as shown."""

import re
from dataclasses import replace
from pathlib import Path

from honest import honest_run

from hpcai500.score.record.source import source_of
from hpcai500.score.rules import rules_3_training
from hpcai500.score.rules.evidence import gather
from hpcai500.score.rules.kinds import own_rules
from hpcai500.score.rules.rule import CheckedRun, RunRule

PAGE = Path(__file__).parents[3] / "CONTRIBUTING.md"


def run_recipe(heading: str, names: dict) -> dict:
    """What the first Python block below `heading` defines."""
    section = PAGE.read_text().split(f"\n## {heading}\n")[1]
    block = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert block
    exec(block[1], names)
    return names


def test_the_rule_passes_an_honest_run_and_names_an_epoch_that_cannot_be(make_spec):
    names = run_recipe("A rule", dict(vars(rules_3_training)))
    (rule,) = [value for value in names.values() if isinstance(value, RunRule) and value.number == "3.6"]
    evidence = gather(source_of(honest_run(make_spec())))

    def breaches(evidence):
        return list(rule.check(CheckedRun(evidence=evidence, kind=own_rules(evidence), framework=None)))

    assert breaches(evidence) == []
    first, *others = evidence.reports
    fast = first.model_copy(update={"value": first.value.model_copy(update={"train_sec": 0.5})})
    forged = replace(evidence, reports=(fast, *others))
    assert breaches(forged) == ["epoch 1: 0.5 s, median 10 s"]


def test_the_format_renders_a_ranking_document():
    from hpcai500.report.formats import Format, by_ending, by_name
    from hpcai500.score.ranking.document import RankingDocument

    render = run_recipe("A report format", {})["render"]
    assert render(RankingDocument(lists=(), published=(), not_ranked=())) == ""
    line = next(line for line in PAGE.read_text().splitlines() if line.startswith('    Format("lines"'))
    formats = eval(f"({line.strip()})", {"Format": Format})
    assert by_name(formats, "lines") is by_ending(formats, "ranking.lines") is formats[0]
