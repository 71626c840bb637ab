"""A run, or an array of runs over seeds, as the text that `sbatch` takes: pure functions, held by golden files."""

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from hpcai500.errors import SpecError
from hpcai500.files import data_dir
from hpcai500.launch.diagnosis import START_MARK
from hpcai500.launch.mpi import MPIRUN_VALUED, mpirun_environment, mpirun_tokens
from hpcai500.launch.slurm.queue import job_name
from hpcai500.spec.run import RunSpec
from hpcai500.spec.site import Site

MAX_ARRAY_SIZE = 1_001
"""Slurm's default; it bounds an array's index, not its length."""

WORKER = "hpcai500.train.worker"

_SEED = "\0seed\0"
"""Stands for the seed until the script runs; no path or value can hold it."""


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
        folders=(*run_folders(spec), *([snapshot] if snapshot else [])),
        run_json=run_json_text(spec) if carry_run_json else "",
        as_root=as_root,
    )


def job_template() -> str:
    return (data_dir("slurm") / "templates" / "job.sbatch.j2").read_text(encoding="utf-8")


def render_job(plan: JobPlan, template: str) -> str:
    """The script.

    Raises:
        SpecError: where a path cannot be written into it.
    """
    site = plan.site
    step = step_tokens(
        site,
        nodes=plan.nodes,
        procs_per_node=plan.procs_per_node,
        num_ranks=plan.num_ranks,
        folders=plan.folders,
        snapshot=plan.snapshot,
        as_root=plan.as_root,
    )
    return fill_template(
        template,
        sbatch_options=[quote_option(option) for option in sbatch_options(plan)],
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
        cpus_per_task=site.slurm.cpus_per_task,
        environment=site_environment(site) | dict(plan.environment),
        step_lines=continued(step),
        is_mpirun=step[0] == "mpirun",
        stop_signal=site.preemption.signal,
        worker=(plan.python, "-m", WORKER),
    )


def fill_template(template: str, **values: Any) -> str:
    """A shell script of `values`, which the template quotes by its filter `q`."""
    from jinja2 import Environment, StrictUndefined  # here, since what starts ranks without a script needs none

    language = Environment(  # noqa: S701 - a shell script
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    language.filters["q"] = shlex.quote
    return language.from_string(template).render(**values)


def sbatch_options(plan: JobPlan) -> list[str]:
    """The options of `sbatch`, unquoted."""
    site, request = plan.site, plan.site.slurm
    given = {
        "job-name": plan.job_name,
        "output": plan.log,
        "array": _array(plan) if len(plan.seeds) > 1 else "",
        "partition": request.partition,
        "account": request.account,
        "qos": request.qos,
        "constraint": request.constraint,
        "reservation": request.reservation,
        "time": request.time,
        "nodes": plan.nodes,
        "ntasks-per-node": plan.procs_per_node,
        "cpus-per-task": request.cpus_per_task,
        "mem": request.memory,
        **gpu_option(site),
        "signal": f"{_signalled(site)}@{site.preemption.grace_sec}" if site.preemption.grace_sec else "",
        "open-mode": "append",
    }
    flags = ["--exclusive"] if request.exclusive else []
    flags.append("--requeue" if site.preemption.max_requeues else "--no-requeue")
    return [*(f"--{name}={value}" for name, value in given.items() if value), *flags, *request.sbatch_arguments]


def gpu_option(site: Site) -> dict[str, str]:
    """Whole nodes' GPUs: an option for each task would hide the peers of a rank's GPU."""
    request = site.slurm
    if not request.gpus_per_node:
        return {}
    count = f"{request.gpu_type}:{request.gpus_per_node}" if request.gpu_type else str(request.gpus_per_node)
    return {"gres": f"gpu:{count}"} if request.gpu_request == "gres" else {"gpus-per-node": count}


def _signalled(site: Site) -> str:
    """Without `B:` it is for the ranks; those of mpirun get it from the script."""
    return f"B:{site.preemption.signal}" if site.slurm.launcher == "mpirun" else site.preemption.signal


def step_tokens(
    site: Site,
    *,
    nodes: int,
    procs_per_node: int,
    num_ranks: int = 0,
    folders: Sequence[str] = (),
    snapshot: str = "",
    as_root: bool = False,
) -> tuple[str, ...]:
    """All that stands before the worker's own command, by the site's launcher; otherwise as `srun_tokens`."""
    if site.slurm.launcher == "srun":
        return srun_tokens(
            site,
            nodes=nodes,
            procs_per_node=procs_per_node,
            num_ranks=num_ranks,
            folders=folders,
            snapshot=snapshot,
        )
    tokens = mpirun_tokens(
        nodes=nodes,
        procs_per_node=procs_per_node,
        num_ranks=num_ranks,
        arguments=site.slurm.mpirun_arguments,
        as_root=as_root,
    )
    return (*tokens, *_container_tokens(site, folders, snapshot))


def srun_tokens(
    site: Site,
    *,
    nodes: int,
    procs_per_node: int,
    num_ranks: int = 0,
    folders: Sequence[str] = (),
    snapshot: str = "",
) -> tuple[str, ...]:
    """All that stands before the worker's own command: `srun`, its options, and the container.

    `num_ranks` is 0 where every node is full; `folders` are mounted into a container under their own names.

    Raises:
        SpecError: where a folder cannot be mounted.
    """
    request = site.slurm
    tokens = ["srun", f"--nodes={nodes}", f"--ntasks={num_ranks or nodes * procs_per_node}"]
    if not num_ranks:
        tokens.append(f"--ntasks-per-node={procs_per_node}")
    if request.cpus_per_task:  # srun does not take it over from sbatch
        tokens.append(f"--cpus-per-task={request.cpus_per_task}")
    tokens += ["--kill-on-bad-exit=1", "--wait=60", f"--mpi={request.mpi}", "--export=ALL", *request.srun_arguments]
    return (*tokens, *_container_tokens(site, folders, snapshot))


def site_environment(site: Site) -> dict[str, str]:
    """The variables that a site sets for every rank."""
    interface = site.software.network_interface
    fabric = {"GLOO_SOCKET_IFNAME": interface, "NCCL_SOCKET_IFNAME": interface} if interface else {}
    of_mpirun = mpirun_environment(interface) if site.slurm.launcher == "mpirun" else {}
    return fabric | of_mpirun | site.software.environment


def step_environment(site: Site, env: Mapping[str, str]) -> dict[str, str]:
    """`site_environment` for ranks that are started from where `env` is: a node of the allocation, or a login node.

    mpirun's own messages begin where it runs: on a login node no interface of the nodes' is there to bind them to.
    """
    on_a_node = "SLURMD_NODENAME" in env
    unfit = set() if on_a_node else {"OMPI_MCA_oob_tcp_if_include"} - site.software.environment.keys()
    return {name: value for name, value in site_environment(site).items() if name not in unfit}


def run_folders(spec: RunSpec) -> tuple[str, ...]:
    """What a run reads and writes on a node, as a container needs it: folders that exist before the run."""
    staging = PurePosixPath(spec.staging)
    made_by_run = str(staging.parent if len(staging.parts) > 2 else staging) if spec.staging else ""
    data = "" if spec.is_synthetic else spec.data
    places = (spec.output, data, made_by_run, spec.workload.folder, spec.resume_from)
    return tuple(place for place in places if place)


def run_environment(spec: RunSpec) -> dict[str, str]:
    """The variables that a run's own settings need."""
    if not spec.settings.execution.deterministic:
        return {}
    alone = {"HOROVOD_FUSION_THRESHOLD": "0"} if spec.backend == "horovod" else {}
    return {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"} | alone  # what Horovod sums together depends on timing


def site_python(site: Site, own: str) -> str:
    """The interpreter on the nodes: the site's, a container's, or this one's own path."""
    return site.software.python or ("python3" if site.container.engine != "none" else own)


def log_pattern(folder: str, name: str) -> str:
    """`name`, a pattern of `sbatch --output`, inside a folder whose own per cent signs mean themselves.

    Raises:
        SpecError: for a backslash, with which Slurm takes the whole pattern as it stands.
    """
    if "\\" in folder:
        raise SpecError(f"{folder}: Slurm writes no log below a folder with a backslash", "choose another --output")
    return f"{folder.replace('%', '%%')}/{name}"


def run_json_text(spec: RunSpec) -> str:
    """`run.json` in one line of a here-document that expands `$seed` and nothing else."""
    record = spec.model_dump(mode="json") | {"seed": _SEED}
    text = json.dumps(record, allow_nan=False)
    for special in ("\\", "$", "`"):
        text = text.replace(special, "\\" + special)
    return text.replace(json.dumps(_SEED).replace("\\", "\\\\"), "$seed")


def _array(plan: JobPlan) -> str:
    """Indices as ranges, `0-3,7`, and how many may run at once."""
    ranges: list[list[int]] = []
    for index in sorted(seed - plan.array_offset for seed in plan.seeds):
        if ranges and ranges[-1][-1] == index - 1:
            ranges[-1] = [ranges[-1][0], index]
        else:
            ranges.append([index])
    text = ",".join("-".join(map(str, bounds)) for bounds in ranges)
    limit = plan.site.slurm.max_parallel
    return f"{text}%{limit}" if limit else text


def _container_tokens(site: Site, folders: Sequence[str], snapshot: str) -> list[str]:
    container = site.container
    if container.engine == "none":
        return []
    mounts = [*(f"{folder}:{folder}" for folder in _outermost(folders)), *container.mounts]
    if container.engine == "pyxis":
        tokens = [f"--container-image={container.image}"]
        tokens += [f"--container-mounts={','.join(mounts)}"] if mounts else []
        tokens += ["--container-env=PYTHONPATH"] if snapshot else []  # before the image's own
        return [*tokens, *container.arguments]
    has_gpus = site.slurm.gpus_per_node and "--rocm" not in container.arguments
    tokens = ["apptainer", "exec", *(["--nv"] if has_gpus else []), *(f"--bind={mount}" for mount in mounts)]
    return [*tokens, *container.arguments, container.image]


def _outermost(folders: Sequence[str]) -> list[str]:
    """`folders` without those inside another of them."""
    for folder in folders:
        if "," in folder or ":" in folder:
            raise SpecError(f"{folder}: a container cannot mount a path with ',' or ':'", "choose another place")
    paths = {PurePosixPath(folder) for folder in folders}
    return sorted(str(path) for path in paths if not paths & set(path.parents))


def continued(tokens: Sequence[str]) -> list[str]:
    """Quoted, one option a line; a word after a word stays beside it, and a value beside its option."""
    lines: list[str] = []
    for token in tokens:
        joins = lines and (not lines[-1].startswith("-") or lines[-1] in MPIRUN_VALUED)
        if joins and not token.startswith("-"):
            lines[-1] += f" {shlex.quote(token)}"
        else:
            lines.append(shlex.quote(token))
    return lines


def quote_option(option: str) -> str:
    """As sbatch reads a `#SBATCH` line: like a shell, but a backslash escapes inside every kind of quotes."""
    if shlex.quote(option) == option:
        return option
    return '"' + option.replace("\\", "\\\\").replace('"', '\\"') + '"'
