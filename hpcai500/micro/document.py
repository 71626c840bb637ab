"""What `hpcai500 micro --json` prints."""

from datetime import UTC, datetime
from typing import Any, Literal

from hpcai500 import __version__
from hpcai500.micro.sample import Coverage, MicroResults, Sample, Skipped
from hpcai500.spec.models import Frozen
from hpcai500.system.hardware import processors
from hpcai500.system.programs import output_of


class MicroDocument(Frozen):
    """The samples of one start, and where they were taken."""

    schema_version: Literal[1, 2] = 2
    """Since 2 a sample says of itself what it is; `upgraded` in predict/measured.py fills that in for 1."""
    hpcai500_version: str = __version__
    time: str
    """UTC, ISO 8601."""
    host: str
    device: str
    """`cpu` or `cuda:0`."""
    accelerator: str
    """The GPU's model, or the processor's."""
    num_threads: int
    """Of the host, for what runs on its processors."""
    backend: str = ""
    """Of the collectives; empty where none were measured."""
    launcher: str = ""
    nodes: int = 1
    num_ranks: int = 1
    samples: tuple[Sample, ...]
    skipped: tuple[Skipped, ...]
    coverages: tuple[Coverage, ...] = ()
    """Of each workload whose shapes were measured."""


def describe(host: str, device: str, found: MicroResults, **ranks: Any) -> MicroDocument:
    """`found` with where it was found; `ranks` are the fields of collectives."""
    import torch

    model = processors(output_of("lscpu", "--json"))["cpu_model"]
    on_gpu = device.startswith("cuda") and torch.cuda.is_available()
    return MicroDocument(
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        host=host,
        device=device,
        accelerator=torch.cuda.get_device_name(device) if on_gpu else model,
        num_threads=torch.get_num_threads(),
        samples=found.samples,
        skipped=found.skipped,
        coverages=found.coverages,
        **ranks,
    )
