"""Lists that others published, scored again from their minutes and qualities."""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import Field

from hpcai500.errors import InputError
from hpcai500.score.ranking.scaling import Sensitivity, sensitivity
from hpcai500.score.record.limits import LONGEST_SHOWN
from hpcai500.score.record.valid_flops import published_flops, valid_flops
from hpcai500.spec.models import Frozen, parse
from hpcai500.spec.workload import ProblemDomain, PublishedList, WorkloadRules, load_rules, problem_settings
from hpcai500.text import one_line


class PublishedEntry(Frozen):
    rank: int
    """Rank by the VFLOPS recomputed here."""
    published_rank: int
    source: str
    accelerator: str
    accelerator_count: int
    framework: str
    is_suspect: bool = False
    """Whether hardware and framework appear to be another row's; the list's note explains it."""
    time_sec: float
    achieved_quality: float
    flops: float
    vflops: float
    published_vflops: float

    @property
    def ratio(self) -> float:
        """Ours over the published figure."""
        return self.vflops / self.published_vflops


class PublishedRankedList(Frozen):
    workload: str
    title: str
    problem: str
    level: str
    convention: str
    target_quality: float
    penalty_exponent: int
    note: str
    status: str = "published, unverified"
    entries: tuple[PublishedEntry, ...]
    sensitivity: Sensitivity | None = None


class _PublishedRow(Frozen):
    rank: int
    source: str
    accelerator: str
    accelerator_count: int
    framework: str
    minutes: float = Field(gt=0)
    top1_percent: float = Field(gt=0, le=100)
    vpflops: float = Field(gt=0)
    is_suspect: bool = False
    """Whether its hardware and framework appear to be another row's."""


def rank_published(
    path: Path, penalty_exponent: int | None = None, *, exponents: Sequence[int] = ()
) -> PublishedRankedList:
    """A published list, scored again from its minutes and accuracies by the convention in its workload.toml.

    With `exponents`, also how the order moves with n.

    Raises:
        InputError: if the workload.toml above `path` does not name it, or a row is malformed.
    """
    folder = path.resolve().parent.parent
    rules, published = _known(folder, path)
    problem = problem_settings(rules, published.problem).problem
    per_sample = problem.published_flops_per_sample
    if per_sample is None:
        raise InputError(f"{folder / 'workload.toml'}: no published_flops_per_sample", "add it to the problem")
    exponent = penalty_exponent or published.penalty_exponent
    entries = [_entry(row, problem, per_sample, exponent) for row in _published_rows(path)]
    entries.sort(key=lambda entry: -entry.vflops)
    points = [[(entry.flops, entry.achieved_quality)] for entry in entries]
    return PublishedRankedList(
        workload=_shown(folder.name),
        title=_shown(f"{rules.title}: {published.title}"),
        problem=_shown(published.problem),
        level=published.level,
        convention=f"{per_sample / 1e9:g} GFLOPs an image, {problem.num_epochs} epochs",
        target_quality=problem.target_quality,
        penalty_exponent=exponent,
        note=_shown(published.note),
        entries=tuple(e.model_copy(update={"rank": r}) for r, e in enumerate(entries, start=1)),
        sensitivity=sensitivity(points, problem.target_quality, exponents) if exponents else None,
    )


def _known(folder: Path, path: Path) -> tuple[WorkloadRules, PublishedList]:
    """The rules in `folder`, and their entry for the list in `path`."""
    if not (folder / "workload.toml").exists():
        raise InputError(f"{path}: no published list of a workload", "rank results: folders or archives")
    rules = load_rules(folder)
    known = {(folder / published.file).resolve(): published for published in rules.published}
    if path.resolve() not in known:
        raise InputError(f"{path}: not named in {folder / 'workload.toml'}", "add a [[published]] table there")
    return rules, known[path.resolve()]


def _entry(row: _PublishedRow, problem: ProblemDomain, per_sample: float, exponent: int) -> PublishedEntry:
    time_sec, quality = row.minutes * 60, row.top1_percent / 100
    flops = published_flops(per_sample, problem.num_epochs, problem.num_train_samples, time_sec)
    return PublishedEntry(
        rank=0,
        published_rank=row.rank,
        source=_shown(row.source),
        accelerator=_shown(row.accelerator),
        accelerator_count=row.accelerator_count,
        framework=_shown(row.framework),
        is_suspect=row.is_suspect,
        time_sec=time_sec,
        achieved_quality=quality,
        flops=flops,
        vflops=valid_flops(flops, quality, problem.target_quality, exponent),
        published_vflops=row.vpflops * 1e15,
    )


def _shown(text: str) -> str:
    """`text` as a ranking may hold it."""
    return one_line(text, LONGEST_SHOWN)


def _truth(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(f"{text!r} is neither true nor false")
    return text == "true"


_VALUES: dict[str, Callable[[str], int | float | bool]] = {
    "rank": int, "accelerator_count": int, "minutes": float, "top1_percent": float, "vpflops": float,
    "is_suspect": _truth,
}  # fmt: skip


def _published_rows(path: Path) -> list[_PublishedRow]:
    rows = []
    with path.open(encoding="utf-8", newline="") as file:
        for number, raw in enumerate(csv.DictReader(file), start=2):
            try:
                values = {key: _VALUES.get(key, str)(value) for key, value in raw.items()}
            except (TypeError, ValueError) as error:
                raise InputError(str(error), "fix the row", at=path, line=number) from error
            rows.append(parse(_PublishedRow, values, path, line=number))
    return rows
