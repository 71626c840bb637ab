"""The verdict's findings about a node, a link or the partition: the table of all kinds of findings, and one finding.

The table of docs/validation.md is made from this (tools/tables.py).
"""

from enum import StrEnum
from typing import Literal, Self, get_args

from pydantic import model_validator

from hpcai500.spec.models import Frozen
from hpcai500.validate.files import Stage

Severity = Literal["fail", "warn", "note"]
SEVERITIES: tuple[Severity, ...] = get_args(Severity)
"""Severities, worst first."""

_SEE_NODE = (
    "Check whether the node is up (`scontrol show node`), its log in the validation's folder, and whether it sees "
    "that folder. Fix or drain the node, then validate it again."
)
_SEE_LOG = "See the node's log in the validation's folder."
WRONG_RESULT = (
    "The node computes wrong results: take it out of service, test its memory and GPU (`dcgmi diag -r 3`, ECC "
    "counters, `memtester`), and compare its library versions."
)


class Kind(StrEnum):
    """Kind of a finding. Findings of one severity are sorted in this order: those that explain others come first."""

    severities: tuple[Severity, ...]
    """Severities that a finding of this kind may have."""
    meaning: str
    """What it usually means."""
    remedy: str
    """Remedy; if empty, it depends on the metric (`remedies.py`)."""

    def __new__(cls, name: str, severities: tuple[Severity, ...] = (), meaning: str = "", remedy: str = "") -> Self:
        kind = str.__new__(cls, name)
        kind._value_ = name
        kind.severities, kind.meaning, kind.remedy = severities, meaning, remedy
        return kind

    UNREACHABLE = "unreachable", ("fail", "warn"), "node down, drained or lost", _SEE_NODE
    TIMEOUT = (
        "timeout",
        ("fail", "warn"),
        "a step took too long: a process hung on a GPU, a disk or the network",
        _SEE_NODE,
    )
    NO_ANSWER = (
        "no_answer",
        ("fail",),
        "no answer in a stage and no other finding that explains it: slurmd dead, shared folder not mounted",
        _SEE_NODE,
    )
    WRONG_RESULT = (
        "wrong_result",
        ("fail", "warn"),
        "a computation, a message or a file came out wrong: bad memory, a bad GPU, a broken library",
        WRONG_RESULT,
    )
    UNHEALTHY = (
        "unhealthy",
        ("fail", "warn"),
        "ECC errors, remapped rows, throttling, a PCIe link below its best, a full disk, a wrong clock, low ulimits",
        _SEE_LOG,
    )
    FAILED = (
        "failed",
        ("fail", "warn"),
        "a stage or child process failed. In micro, *is not measured*: one call of the kernel would take more than a "
        "second, or memory is full; it fails only if most nodes measure the kernel. On `(all)`: lines of a "
        "measurement file cannot be read, or are of nodes outside the plan",
        _SEE_LOG,
    )
    MISSING = (
        "missing",
        ("fail",),
        "the node reports fewer metrics than most, or than in the baseline: a device is gone",
        "See the node's log in the validation's folder. A lost device shows in `nvidia-smi -L` and "
        "`dmesg -T | grep -i xid`.",
    )
    DIFFERS = (
        "differs",
        ("fail",),
        "a node differs from the majority in what must be equal: driver, kernel, library, firmware setting, number "
        "of GPUs, or a loss",
        "Give the node the image, driver and settings of the others, reboot it, and validate it again.",
    )
    SPLIT = (
        "split",
        ("fail",),
        "no value has the majority: an unfinished roll-out, or two kinds of nodes in one partition",
        "If the partition has two kinds of nodes on purpose, validate each kind by itself (--nodes). Otherwise "
        "finish the roll-out.",
    )
    LINKS = (
        "links",
        ("fail", "warn"),
        "slow links. Of one node: adapter, slot, cable or switch port. Of one pair: a route or port that only this "
        "link uses. Between many nodes: a shared switch or uplink, or other traffic",
        "",
    )
    PEERS = (
        "peers",
        ("fail", "warn"),
        "slower than its peers. In micro, one device: hot, power-capped, badly seated or in use by another process; "
        "all devices of a node: BIOS or power profile, a missing memory channel. In storage: client settings, "
        "network, or a busy file system",
        "",
    )
    EXPECTED = (
        "expected",
        ("fail", "warn"),
        "outside the bounds of the site's file",
        "Compare the node with one that reaches the value, or correct the site's file.",
    )
    BASELINE = (
        "baseline",
        ("fail", "warn"),
        "the node, or with *n of n* the whole partition, is slower than it was",
        "If the change was intended (an upgrade), save a new baseline. Otherwise find out what changed since its "
        "date.",
    )
    SPREAD = (
        "spread",
        ("warn",),
        "nodes differ so much that none can be called slow: two groups, or busy nodes",
        "Look at the heat map for two groups; validate each group by itself, on idle nodes. If healthy nodes differ "
        "that much here, raise `relative` for this metric under [[peers]] in the site's file.",
    )
    BETTER = (
        "better",
        ("note",),
        "faster than its peers",
        "Nothing to fix, but something differs: check whether it really does the same work, or whether its peers are "
        "all slow.",
    )


class Finding(Frozen):
    """One thing to fix. Figures are those of the worst metric, in `unit`."""

    severity: Severity
    kind: Kind
    stage: Stage
    further_stages: tuple[Stage, ...] = ()
    """Further stages that the node did not answer."""
    nodes: tuple[str, ...]
    """Nodes concerned: two for a link; empty for the whole validation."""
    device: str = ""
    metric: str = ""
    unit: str = ""
    value: float | str | None = None
    reference: float | str | None = None
    """Value of the peers, the baseline or the site's file."""
    message: str
    remedy: str
    details: tuple[str, ...] = ()
    """One line for each further metric with the same finding."""

    @model_validator(mode="after")
    def _has_a_severity_of_its_kind(self) -> Self:
        if self.severity not in self.kind.severities:
            raise ValueError(f"a finding of kind {self.kind} has no severity {self.severity!r}")
        return self
