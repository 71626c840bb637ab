"""The part of a rank's command that runs it in a site's container: the engine's tokens and its mounts."""

from collections.abc import Sequence
from pathlib import PurePosixPath

from hpcai500.errors import SpecError
from hpcai500.spec.run import RunSpec
from hpcai500.spec.site import Site


def site_python(site: Site, own: str) -> str:
    """The interpreter on the nodes: the site's, a container's, or else `own`, the path of this one."""
    return site.software.python or ("python3" if site.container.engine != "none" else own)


def container_tokens(site: Site, folders: Sequence[str], snapshot: str) -> list[str]:
    """The tokens between the launcher's options and the interpreter.

    Raises:
        SpecError: if a folder cannot be mounted.
    """
    container = site.container
    if container.engine == "none":
        return []
    mounts = [*(f"{folder}:{folder}" for folder in _outermost(folders)), *container.mounts]
    if container.engine == "pyxis":
        tokens = [f"--container-image={container.image}"]
        tokens += [f"--container-mounts={','.join(mounts)}"] if mounts else []
        tokens += ["--container-env=PYTHONPATH"] if snapshot else []  # takes precedence over the image's own
        return [*tokens, *container.arguments]
    has_gpus = site.slurm.gpus_per_node and "--rocm" not in container.arguments
    tokens = ["apptainer", "exec", *(["--nv"] if has_gpus else []), *(f"--bind={mount}" for mount in mounts)]
    return [*tokens, *container.arguments, container.image]


def run_mounts(spec: RunSpec) -> tuple[str, ...]:
    """Folders that a run reads and writes on a node. Each exists before the run."""
    staging = PurePosixPath(spec.staging)
    made_by_run = str(staging.parent if len(staging.parts) > 2 else staging) if spec.staging else ""
    data = "" if spec.is_synthetic else spec.data
    folders = (spec.output, data, made_by_run, spec.workload.folder, spec.resume_from)
    return tuple(folder for folder in folders if folder)


def _outermost(folders: Sequence[str]) -> list[str]:
    """`folders` without those that are inside another one."""
    for folder in folders:
        if "," in folder or ":" in folder:
            raise SpecError(f"{folder}: a container cannot mount a path with ',' or ':'", "choose another folder")
    paths = {PurePosixPath(folder) for folder in folders}
    return sorted(str(path) for path in paths if not paths & set(path.parents))
