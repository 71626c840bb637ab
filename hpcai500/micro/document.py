"""The document that `hpcai500 micro --json` prints."""

from datetime import UTC, datetime
from typing import Any, Literal

from hpcai500 import __version__
from hpcai500.micro.sample import Coverage, MicroResults, Sample, Skipped
from hpcai500.spec.models import Frozen
from hpcai500.system.hardware import processors
from hpcai500.system.programs import output_of


class MicroDocument(Frozen):
    """The samples of one invocation, and the machine where they were measured."""

    schema_version: Literal[1, 2] = 2
    """Version 2 has the kind of each sample; `upgraded` in predict/measured.py adds it to version 1."""
    hpcai500_version: str = __version__
    time: str
    """UTC, ISO 8601."""
    host: str
    device: str
    """`cpu` or `cuda:0`."""
    accelerator: str
    """The GPU's model, or the processor's."""
    num_threads: int
    """Threads of the host, for kernels on its CPUs."""
    backend: str = ""
    """Communication library of the collectives; empty if none were measured."""
    launcher: str = ""
    nodes: int = 1
    num_ranks: int = 1
    samples: tuple[Sample, ...]
    skipped: tuple[Skipped, ...]
    coverages: tuple[Coverage, ...] = ()
    """Coverage of each workload whose shapes were measured."""


def describe(host: str, device: str, found: MicroResults, **ranks: Any) -> MicroDocument:
    """The document for `found`; `ranks` are the fields that describe collectives."""
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
