"""A validation's job as the text that `sbatch` takes: pure functions, held by golden files."""

from pathlib import Path

from hpcai500.launch.container import site_python
from hpcai500.launch.launcher import RankStart
from hpcai500.launch.layout import Layout
from hpcai500.launch.registry import find_launcher
from hpcai500.launch.slurm.header import Header, log_pattern, quote_option, sbatch_options
from hpcai500.launch.slurm.script import continued, fill_template, templates_folder
from hpcai500.launch.start import Worker, start_environment
from hpcai500.spec.site import Site

AGENT = "hpcai500.validate.agent.main"
_STEP = ("--no-kill", "--kill-on-bad-exit=0", "--wait=0", "--cpu-bind=none")
"""If one node dies or fails, the other agents continue; each may use all cores of its node."""


def agent_site(site: Site, *, partition: str, minutes: int, nodes: str) -> Site:
    """`site` with a request for whole nodes and one agent each.

    `nodes` is the name of one node, or a file of node names.
    """
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
    """The script of one job on `num_nodes` nodes; `site` comes from `agent_site`.

    Raises:
        SpecError: if a path cannot be written into it.
    """
    header = Header(site, name, num_nodes, 1, log=log_pattern(str(folder / "logs"), "job-%j.out"))
    step = agents_step(site, folder, num_nodes)._replace(folders=(str(folder), snapshot), snapshot=snapshot)
    launcher = find_launcher(step.layout.launcher)
    template = templates_folder() / "validate.sbatch.j2"
    return fill_template(
        template.read_text(encoding="utf-8"),
        sbatch_options=[quote_option(option) for option in sbatch_options(header)],
        prologue=site.software.prologue,
        modules=site.software.modules,
        snapshot=snapshot,
        environment=start_environment(launcher, step, {}),
        start_lines=continued(launcher.tokens(step)),
        agent=(site_python(site, python), "-m", AGENT, str(folder)),
    )


def agents_step(site: Site, folder: Path, num_nodes: int) -> RankStart:
    """One agent on each of `num_nodes` nodes of an allocation; `site` comes from `agent_site`."""
    own = (*site.slurm.srun_arguments, *_STEP, f"--output={log_pattern(str(folder / 'logs'), '%N.log')}")
    request = site.slurm.model_copy(update={"srun_arguments": own})
    layout = Layout(launcher=site.slurm.launcher, nodes=num_nodes)
    return RankStart(layout, site.model_copy(update={"slurm": request}), in_allocation=True)


def agent_worker(folder: Path, *words: str) -> Worker:
    """An agent. It computes nothing itself: its children use all cores of the node."""
    return Worker(AGENT, (str(folder), *words), (str(folder),), computes=False)
