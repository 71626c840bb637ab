"""Records of `hpcai500 micro --json`, of any version."""

import re
from collections.abc import Mapping
from typing import Any

_COLLECTIVE = re.compile(
    r"(?P<family>all_reduce|all_gather|broadcast|all_to_all)_(?P<size>\d{1,18})_(?P<figure>sec|bus_bytes_per_sec)"
)
_STORAGE = re.compile(r"(?P<family>storage|prepared)_.*")
_KERNEL = re.compile(
    r"(?P<family>gemm|convolution|aibench)_.*|(?P<bytes>copy|host_to_device|device_to_host)_bytes_per_sec"
)
_UNITS = {"sec": "s", "bus_bytes_per_sec": "B/s"}


def upgraded(record: Any) -> Any:
    """`record` as schema version 2; unchanged if it is not a record of version 1.

    In version 1 only the metric's name gave a sample's kind. Nothing else reads facts from a name.
    """
    if not isinstance(record, dict) or record.get("schema_version", 1) != 1:
        return record
    samples = record.get("samples")
    if not isinstance(samples, list):
        return record
    new = [{**_kind_of(sample), **sample} if isinstance(sample, dict) else sample for sample in samples]
    return record | {"schema_version": 2, "samples": new}


def _kind_of(sample: Mapping[str, Any]) -> dict[str, Any]:
    """Part, family, unit and size from a name of version 1."""
    metric = str(sample.get("metric"))
    if found := _COLLECTIVE.fullmatch(metric):
        return {
            "part": "collectives",
            "family": found["family"],
            "size_bytes": int(found["size"]),
            "unit": _UNITS[found["figure"]],
        }
    if found := _STORAGE.fullmatch(metric):
        return {"part": "storage", "family": found["family"]}
    if found := _KERNEL.fullmatch(metric):
        return {"part": "kernels", "family": found["family"] or found["bytes"]}
    return {"part": "workloads", "family": "shape"}
