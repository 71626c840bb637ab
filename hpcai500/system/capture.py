"""Layers 1 to 6 of a node, read on the node itself while its rank starts."""

import platform
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from hpcai500.spec.run import RunSpec
from hpcai500.system.hardware import hardware
from hpcai500.system.software import acceleration_libraries, communication_libraries, framework, operating_system


def start_capture(spec: RunSpec, placement: Mapping[str, Any]) -> "Future[dict[str, Any]]":
    """Run `capture_node` in a thread, since it mostly waits for files and programs."""
    worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="capture")
    captured = worker.submit(capture_node, spec, placement)
    worker.shutdown(wait=False)
    return captured


def capture_node(spec: RunSpec, placement: Mapping[str, Any]) -> dict[str, Any]:
    """Host name and layers of this node; keys are the layers' numbers. `placement` is that of its first rank."""
    return {
        "host": platform.node(),
        "layers": {
            "1": hardware(),
            "2": operating_system(),
            "3": communication_libraries(),
            "4": acceleration_libraries(),
            "5": framework(),
            "6": programming_model(spec) | dict(placement),
        },
    }


def programming_model(spec: RunSpec) -> dict[str, Any]:
    execution = spec.settings.execution
    return {
        "backend": spec.backend,
        "launcher": spec.launcher,
        "parallel_mode": "data, synchronous",
        "world_size": spec.world_size,
        "nodes": spec.nodes,
        "precision": execution.precision,
        "compile": execution.compile,
        "gradient_compression": execution.gradient_compression,
        "deterministic": execution.deterministic,
    }


def workload_layers(spec: RunSpec, structure: Any, dataset: Any) -> dict[str, Any]:
    """Layers 7 to 9, equal on all nodes; `structure` and `dataset` are the values of their events."""
    settings = spec.settings.model_dump(mode="json")
    return {
        "7": {
            "workload": spec.workload.name,
            "code_digest": spec.workload.code_digest,
            "structure": structure,
            "model": settings["model"],
            "data": settings["data"],
        },
        "8": {table: settings[table] for table in ("batch", "optimizer", "schedule")},
        "9": {**settings["problem"], "data": dataset},
    }
