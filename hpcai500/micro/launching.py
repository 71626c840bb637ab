"""Starting ranks that measure collectives, in the same way as runs are started."""

import tempfile
from pathlib import Path
from typing import Annotated

from pydantic import Field

from hpcai500.files import read_json, storage, write_atomic
from hpcai500.launch.environment import Machine
from hpcai500.launch.launcher import RankStart
from hpcai500.launch.layout import Layout
from hpcai500.launch.process import execute
from hpcai500.launch.start import Worker, start_command
from hpcai500.micro.sample import MicroResults
from hpcai500.spec.models import Frozen, parse
from hpcai500.spec.site import Site

WORKER = "hpcai500.micro.worker"
FINDINGS = "findings.json"
SIZES = (8, 1 << 10, 1 << 20, 16 << 20)
"""Bytes of the whole array, as nccl-tests counts them, even if each rank handles only a part."""

Bytes = Annotated[int, Field(ge=1)]


class CollectivesRequest(Frozen):
    """`request.json`: the sizes and the time budget of the measurement, and how the ranks were started."""

    layout: Layout
    sizes: tuple[Bytes, ...] = SIZES
    budget_sec: Annotated[float, Field(gt=0)]


def read_request(path: Path) -> CollectivesRequest:
    return parse(CollectivesRequest, read_json(path), path)


def start_collectives(
    request: CollectivesRequest, folder: Path, site: Site, machine: Machine, *, in_allocation: bool, quiet: bool
) -> MicroResults:
    """Start the ranks, in the allocation around us or on this machine, and read their results.

    `folder` must be shared by the nodes. Temporary files are kept in a folder below it until the ranks have ended.

    Raises:
        HpcAi500Error: with the first rank's reason, if they fail.
    """
    with storage(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".hpcai500-micro-", dir=folder) as name:
            path = Path(name).absolute() / "request.json"
            write_atomic(path, request.model_dump_json(indent=2) + "\n")
            start = RankStart(request.layout, site, in_allocation=in_allocation)
            command = start_command(Worker(WORKER, (str(path),), (str(path.parent),)), start, machine)
            failure = execute(command, path.parent / "stderr.log", quiet=quiet)
            if failure:
                raise failure
            return parse(MicroResults, read_json(path.parent / FINDINGS), "the ranks' findings")
