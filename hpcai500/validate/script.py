"""A validation's job as the text that `sbatch` takes: pure functions, held by golden files."""

from pathlib import Path

from hpcai500.files import data_dir
from hpcai500.launch.slurm.script import (
    JobPlan,
    continued,
    fill_template,
    log_pattern,
    quote_option,
    sbatch_options,
    site_environment,
    site_python,
    srun_tokens,
)
from hpcai500.spec.site import Site

AGENT = "hpcai500.validate.agent"
_STEP = ("--no-kill", "--kill-on-bad-exit=0", "--wait=0", "--cpu-bind=none")
"""One node's death or failure ends no other one's agent, which may use all cores of its node."""


def agent_site(site: Site, *, partition: str, minutes: int, nodes: str) -> Site:
    """`site` as it asks for whole nodes with one agent each; `nodes` is a file of their names, or one name."""
    request = site.slurm
    cores = request.procs_per_node * request.cpus_per_task
    slurm = request.model_copy(
        update={
            "partition": partition or request.partition,
            "time": str(minutes),
            "tasks_per_node": 1,
            "cpus_per_task": cores,
            "exclusive": True,
            "launcher": "srun",
            "mpi": "none",
            "sbatch_arguments": (*request.sbatch_arguments, "--no-kill", f"--nodelist={nodes}"),
        }
    )
    preemption = site.preemption.model_copy(update={"max_requeues": 0, "grace_sec": 0})
    return site.model_copy(update={"slurm": slurm, "preemption": preemption})


def render_agents(site: Site, folder: Path, *, name: str, num_nodes: int, python: str, snapshot: str) -> str:
    """The script of one job on `num_nodes` nodes; `site` is of `agent_site`.

    Raises:
        SpecError: where a path cannot be written into it.
    """
    plan = JobPlan(
        site=site,
        job_name=name,
        nodes=num_nodes,
        procs_per_node=1,
        num_ranks=0,
        seeds=(0,),
        run_prefix="",
        python=site_python(site, python),
        log=log_pattern(str(folder / "logs"), "job-%j.out"),
    )
    template = data_dir("slurm") / "templates" / "validate.sbatch.j2"
    return fill_template(
        template.read_text(encoding="utf-8"),
        sbatch_options=[quote_option(option) for option in sbatch_options(plan)],
        prologue=site.software.prologue,
        modules=site.software.modules,
        snapshot=snapshot,
        cpus_per_task=site.slurm.cpus_per_task,
        environment=site_environment(site),
        step_lines=continued(step_of_agents(site, folder, num_nodes, snapshot)),
        agent=(plan.python, "-m", AGENT, str(folder)),
    )


def step_of_agents(site: Site, folder: Path, num_nodes: int, snapshot: str = "") -> tuple[str, ...]:
    """What stands before an agent's own command, in a job on `num_nodes` nodes."""
    own = (*site.slurm.srun_arguments, *_STEP, f"--output={log_pattern(str(folder / 'logs'), '%N.log')}")
    request = site.slurm.model_copy(update={"srun_arguments": own})
    folders = [str(folder), *([snapshot] if snapshot else [])]
    return srun_tokens(
        site.model_copy(update={"slurm": request}), nodes=num_nodes, procs_per_node=1, folders=folders,
        snapshot=snapshot,
    )  # fmt: skip
