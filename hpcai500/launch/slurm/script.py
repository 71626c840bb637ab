"""The script that `sbatch` takes for a run or an array of runs: pure functions, tested by golden files."""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
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
"""A placeholder for the seed, which no path or value can contain."""
_ON_A_NODE = {"SLURMD_NODENAME": ""}
"""The environment of a job script, as far as launchers read it."""


class JobPlan(NamedTuple):
    """The values of `render_job`; `plan_job` derives them from the runs."""

    site: Site
    job_name: str
    nodes: int
    procs_per_node: int
    num_ranks: int
    """Total number of ranks; 0 for `nodes * procs_per_node`."""
    seeds: tuple[int, ...]
    """One seed for a plain job; several for an array, whose index plus `array_offset` is the seed."""
    run_prefix: str
    """The path of a run's folder up to its seed."""
    python: str
    log: str = ""
    """The pattern for `sbatch --output`, for output of the script itself. Its folder must exist."""
    snapshot: str = ""
    """A folder that comes first on PYTHONPATH; empty for none."""
    array_offset: int = 0
    environment: tuple[tuple[str, str], ...] = ()
    folders: tuple[str, ...] = ()
    """Folders that a container must mount, in addition to the site's mounts."""
    run_json: str = ""
    """`run.json` as a here-document that expands `$seed`, for runs whose folder does not exist yet."""
    as_root: bool = False
    """Whether jobs run as root, for which mpirun needs an option."""


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
    """One job, or one array, for runs that differ only in their seed.

    `python` is used if neither the site nor a container has its own interpreter.
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


def templates_folder() -> Path:
    """The folder of templates, which also has the parts that they include."""
    return data_dir("slurm") / "templates"


def job_template() -> str:
    return (templates_folder() / "job.sbatch.j2").read_text(encoding="utf-8")


def header_of(plan: JobPlan) -> Header:
    indices = tuple(seed - plan.array_offset for seed in plan.seeds) if len(plan.seeds) > 1 else ()
    return Header(plan.site, plan.job_name, plan.nodes, plan.procs_per_node, indices, plan.log)


def render_job(plan: JobPlan, template: str) -> str:
    """The script.

    Raises:
        SpecError: if a path cannot be written into it, or if the site's launcher cannot start ranks in a job.
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
    """A shell script from a template and `values`. The template's filter `q` quotes a value."""
    from jinja2 import (
        Environment,
        FileSystemLoader,
        StrictUndefined,
    )  # here, since starting ranks without a script does not need it

    language = Environment(  # noqa: S701 - a shell script
        loader=FileSystemLoader(templates_folder()),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    language.filters["q"] = shlex.quote
    return language.from_string(template).render(**values)


def run_json_text(spec: RunSpec) -> str:
    """`run.json` as one line of a here-document that expands only `$seed`."""
    record = spec.model_dump(mode="json") | {"seed": _SEED}
    text = json.dumps(record, allow_nan=False)
    for special in ("\\", "$", "`"):
        text = text.replace(special, "\\" + special)
    return text.replace(json.dumps(_SEED).replace("\\", "\\\\"), "$seed")


_VALUED = ("-np", "--map-by", "--bind-to", "--host")
"""Options of launchers whose value is the next token."""


def continued(tokens: Sequence[str]) -> list[str]:
    """Quoted tokens, one option per line. A value stays on the line of its option, and words stay together."""
    lines: list[str] = []
    for token in tokens:
        joins = lines and (not lines[-1].startswith("-") or lines[-1] in _VALUED)
        if joins and not token.startswith("-"):
            lines[-1] += f" {shlex.quote(token)}"
        else:
            lines.append(shlex.quote(token))
    return lines
