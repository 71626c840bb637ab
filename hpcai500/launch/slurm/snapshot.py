"""A copy of the harness and the workload, so that later edits do not affect a run that waits in a queue."""

import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import hpcai500
from hpcai500.files import data_dir, digest, digest_tree, new_folder, storage
from hpcai500.spec.run import RunSpec

_CODE = (".py", ".toml", ".j2")
_IGNORED = shutil.ignore_patterns("__pycache__", ".*", "_data")


def take_snapshot(spec: RunSpec) -> tuple[RunSpec, Path]:
    """`spec` with a copy of its workload, and the folder to put first on PYTHONPATH.

    The folder is named by its content, so that equal code is copied once for all runs of a results directory.
    """
    package = Path(hpcai500.__file__).parent
    identity = digest([digest_tree(package, _CODE), spec.workload.name, spec.workload.code_digest])
    folder = Path(spec.output) / "snapshots" / identity[:16]
    workload = folder / "workloads" / spec.workload.name
    _copy_once({"hpcai500": package, f"workloads/{workload.name}": Path(spec.workload.folder)}, folder)
    identity_there = spec.workload.model_copy(update={"folder": str(workload)})
    return spec.model_copy(update={"workload": identity_there}), folder


def take_package_snapshot(output: Path) -> Path:
    """Copy the package and the shipped workloads below `output`. Return the folder to put first on PYTHONPATH."""
    parts = {"hpcai500": Path(hpcai500.__file__).parent, "workloads": data_dir("workloads")}
    identity = digest([digest_tree(part, _CODE) for part in parts.values()])
    folder = output / "snapshots" / identity[:16]
    _copy_once(parts, folder)
    return folder


def _copy_once(parts: Mapping[str, Path], folder: Path) -> None:
    """Copy each folder of `parts` to the subfolder of its name. A reader sees all of `folder` or none of it."""
    if folder.exists():
        return
    with suppress(FileExistsError), new_folder(folder) as made, storage(folder):  # another submission was faster
        for name, source in parts.items():
            shutil.copytree(source, made / name, ignore=_IGNORED)
