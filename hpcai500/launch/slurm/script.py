"""A run, or an array of runs over seeds, as the text that `sbatch` takes: pure functions, held by golden files."""

import json
import shlex
from collections.abc import Sequence
from typing import Any, NamedTuple

from hpcai500.files import data_dir
from hpcai500.launch.container import run_mounts, site_python
from hpcai500.launch.diagnosis import START_MARK
from hpcai500.launch.launcher import RankStart
from hpcai500.launch.layout import Layout
from hpcai500.launch.registry import job_launcher
from hpcai500.launch.slurm.header import Header, quote_option, sbatch_options
from hpcai500.launch.slurm.queue import job_name
from hpcai500.launch.start import TRAINING, run_environment, start_environment
from hpcai500.spec.run import RunSpec
from hpcai500.spec.site import Site

_SEED = "\0seed\0"
"""Stands for the seed until the script runs; no path or value can hold it."""
_ON_A_NODE = {"SLURMD_NODENAME": ""}
"""The environment of a job script, as far as launchers ask."""


class JobPlan(NamedTuple):
    """What `render_job` needs to know; `plan_job` derives it from the runs."""

    site: Site
    job_name: str
    nodes: int
    procs_per_node: int
    num_ranks: int
    """In all; 0: `nodes * procs_per_node`."""
    seeds: tuple[int, ...]
    """One: a plain job; several: an array whose index, plus `array_offset`, is the seed."""
    run_prefix: str
    """A run's folder, up to its seed."""
    python: str
    log: str = ""
    """`sbatch --output`'s pattern, for what the script itself says: its folder must exist. Empty: Slurm's default."""
    snapshot: str = ""
    """A folder that comes first on PYTHONPATH."""
    array_offset: int = 0
    environment: tuple[tuple[str, str], ...] = ()
    folders: tuple[str, ...] = ()
    """What a container must see, beside the site's own mounts."""
    run_json: str = ""
    """`run.json` as a here-document that expands `$seed`, for runs that nothing has written yet."""
    as_root: bool = False
    """Jobs run as root, which mpirun wants to be told."""


def plan_job(
    specs: Sequence[RunSpec],
    site: Site,
    *,
    python: str,
    log: str = "",
    snapshot: str = "",
    array_offset: int = 0,
    carry_run_json: bool = False,
    as_root: bool = False,
) -> JobPlan:
    """One job, or one array, for runs that differ in their seed alone.

    `python` serves where neither the site nor a container has an interpreter of its own.
    """
    spec = specs[0]
    return JobPlan(
        site=site,
        job_name=job_name(spec.workload.name, spec.run_prefix, array_offset if len(specs) > 1 else spec.seed),
        nodes=spec.nodes,
        procs_per_node=spec.procs_per_node,
        num_ranks=spec.num_ranks,
        seeds=tuple(each.seed for each in specs),
        run_prefix=spec.run_prefix,
        python=site_python(site, python),
        log=log,
        snapshot=snapshot,
        array_offset=array_offset,
        environment=tuple(run_environment(spec).items()),
        folders=(*run_mounts(spec), *([snapshot] if snapshot else [])),
        run_json=run_json_text(spec) if carry_run_json else "",
        as_root=as_root,
    )


def job_template() -> str:
    return (data_dir("slurm") / "templates" / "job.sbatch.j2").read_text(encoding="utf-8")


def header_of(plan: JobPlan) -> Header:
    indices = tuple(seed - plan.array_offset for seed in plan.seeds) if len(plan.seeds) > 1 else ()
    return Header(plan.site, plan.job_name, plan.nodes, plan.procs_per_node, indices, plan.log)


def render_job(plan: JobPlan, template: str) -> str:
    """The script.

    Raises:
        SpecError: if a path cannot be written into it, or the site's launcher starts no ranks in a job.
    """
    site = plan.site
    launcher = job_launcher(site.slurm.launcher)
    layout = Layout(
        launcher=launcher.name, nodes=plan.nodes, procs_per_node=plan.procs_per_node, num_ranks=plan.num_ranks
    )
    start = RankStart(
        layout, site, in_allocation=True, folders=plan.folders, snapshot=plan.snapshot, as_root=plan.as_root
    )
    return fill_template(
        template,
        sbatch_options=[quote_option(option) for option in sbatch_options(header_of(plan))],
        prologue=site.software.prologue,
        modules=site.software.modules,
        is_array=len(plan.seeds) > 1,
        array_offset=plan.array_offset,
        seed=plan.seeds[0],
        run_prefix=plan.run_prefix,
        max_requeues=site.preemption.max_requeues,
        start_mark=START_MARK,
        run_json=plan.run_json,
        snapshot=plan.snapshot,
        environment=start_environment(launcher, start, _ON_A_NODE) | dict(plan.environment),
        start_lines=continued(launcher.tokens(start)),
        passes_signals=not launcher.gets_job_signals,
        stop_signal=site.preemption.signal,
        launcher_signal=launcher.stop_signal.name.removeprefix("SIG"),
        worker=(plan.python, "-m", TRAINING),
    )


def fill_template(template: str, **values: Any) -> str:
    """A shell script of `values`, which the template quotes by its filter `q`."""
    from jinja2 import Environment, StrictUndefined  # here, since what starts ranks without a script needs none

    language = Environment(  # noqa: S701 - a shell script
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    language.filters["q"] = shlex.quote
    return language.from_string(template).render(**values)


def run_json_text(spec: RunSpec) -> str:
    """`run.json` in one line of a here-document that expands `$seed` and nothing else."""
    record = spec.model_dump(mode="json") | {"seed": _SEED}
    text = json.dumps(record, allow_nan=False)
    for special in ("\\", "$", "`"):
        text = text.replace(special, "\\" + special)
    return text.replace(json.dumps(_SEED).replace("\\", "\\\\"), "$seed")


_VALUED = ("-np", "--map-by", "--bind-to", "--host")
"""Options of launchers that the next token belongs to."""


def continued(tokens: Sequence[str]) -> list[str]:
    """Quoted, one option a line; a word after a word stays beside it, and a value beside its option."""
    lines: list[str] = []
    for token in tokens:
        joins = lines and (not lines[-1].startswith("-") or lines[-1] in _VALUED)
        if joins and not token.startswith("-"):
            lines[-1] += f" {shlex.quote(token)}"
        else:
            lines.append(shlex.quote(token))
    return lines
