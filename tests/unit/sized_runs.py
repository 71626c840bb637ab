"""Runs of any size by hand, and networks and measurements of one, for predictions."""

import json
import math

from honest import honest_run

from hpcai500.predict.communication import Link, ring_sec
from hpcai500.predict.network import Range, band, link_band
from hpcai500.spec.run import resolve


def wide(low=8.0, high=12.5, latency=(2.0, 20.0)):
    link = link_band(
        Range(latency[0], math.sqrt(math.prod(latency)), latency[1]), Range(low, math.sqrt(low * high), high)
    )
    return band(link, link, ("by hand", "by hand"))


def a_run(tmp_path, *, nodes=1, procs=1, batch=256, seed=0, problem="full", structure=None, **overrides):
    spec = resolve(
        "image_classification", problem=problem, level="free", seed=seed, launcher="srun" if nodes > 1 else "local",
        overrides={"batch.global_batch_size": batch, **overrides}, system="box", data=str(tmp_path / "data"),
        output=str(tmp_path / f"{nodes}x{procs}"), nodes=nodes, procs_per_node=procs,
    )  # fmt: skip
    return honest_run(spec, structure=structure)


def micro_file(path, nodes, num_ranks):
    link = Link(latency_sec=1e-6, bytes_per_sec=200e9)
    kind = {"part": "collectives", "family": "all_reduce", "unit": "s"}
    samples = [
        {**kind, "size_bytes": n, "value": sec, "lower_quartile": sec, "upper_quartile": sec}
        for n, sec in ((n, ring_sec(n, num_ranks, link)) for n in (8, 1 << 20, 1 << 24))
    ]
    path.write_text(json.dumps({"schema_version": 2, "nodes": nodes, "num_ranks": num_ranks, "samples": samples}))
    return str(path)
