"""The table of kinds of findings."""

import pytest
from pydantic import ValidationError

from hpcai500.validate.judge.findings import SEVERITIES, Finding, Kind
from hpcai500.validate.judge.reading import Key
from hpcai500.validate.judge.remedies import BY_METRIC, remedy


def finding(**fields):
    given = {
        "severity": "fail",
        "kind": Kind.MISSING,
        "stage": "health",
        "nodes": ("a",),
        "message": "",
        "remedy": "",
    }
    return Finding(**given | fields)


def test_the_kinds_stand_in_this_order():
    assert list(Kind) == [
        "unreachable", "timeout", "no_answer", "wrong_result", "unhealthy", "failed", "missing", "differs", "split",
        "links", "peers", "expected", "baseline", "spread", "better",
    ]  # fmt: skip


@pytest.mark.parametrize("kind", list(Kind))
def test_every_kind_has_severities_a_meaning_and_a_remedy(kind):
    assert kind.severities
    assert set(kind.severities) <= set(SEVERITIES)
    assert kind.meaning
    assert all(remedy(kind, Key(stage, "some_copy", 1)) for stage in ("micro", "links", "collectives", "storage"))


def test_a_slow_metric_s_remedy_is_that_of_its_first_pattern():
    assert remedy(Kind.PEERS, Key("micro", "copy_bytes_per_sec", 1)) == dict(BY_METRIC)["micro/*copy*"]
    assert remedy(Kind.BASELINE, Key("health", "nothing", 1)) == Kind.BASELINE.remedy


@pytest.mark.parametrize("wrong", [{"kind": "odd"}, {"kind": Kind.SPREAD}, {"severity": "bad"}])
def test_a_finding_of_an_unknown_kind_or_a_severity_that_its_kind_lacks_is_refused(wrong):
    with pytest.raises(ValidationError):
        finding(**wrong)
