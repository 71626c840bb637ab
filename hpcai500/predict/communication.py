"""Cost of averaging gradients: all-reduce by latency and bandwidth, and the part that the backward pass hides."""

import math
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import NamedTuple

from pydantic import Field

from hpcai500.spec.models import Frozen

MIB = 2**20
DDP_FIRST_BUCKET_BYTES = MIB
DDP_BUCKET_BYTES = 25 * MIB
HOROVOD_FUSION_BYTES = 128 * MIB
HOROVOD_CYCLE_SEC = 0.001
"""Defaults of torch's DistributedDataParallel, and of Horovod 0.28."""


class Link(Frozen):
    latency_sec: float = Field(ge=0)
    """Latency of one message."""
    bytes_per_sec: float = Field(gt=0)
    """Bandwidth per direction; between nodes, of all links of one node together."""

    def scaled(self, factor: float) -> "Link":
        """A link that is `factor` times as fast."""
        return Link(latency_sec=self.latency_sec / factor, bytes_per_sec=self.bytes_per_sec * factor)


class Network(Frozen):
    """Links of a machine; None for an unknown link, over which nothing may be sent."""

    between: Link | None
    """Link between nodes."""
    within: Link | None
    """Link within a node, from each rank to its neighbour."""


class AllReduce(NamedTuple):
    sec: float
    algorithm: str


class Gradient(NamedTuple):
    """Gradient of one layer or bucket."""

    num_bytes: float
    """Size in fp32."""
    ready: float
    """Time at which it is complete, as a fraction of the backward pass."""


class Sync(NamedTuple):
    exposed_sec: float
    """Time from the end of the backward pass to the last averaged gradient."""
    busy_sec: float
    """Time of all collectives of the step."""
    algorithm: str
    """Algorithm for the largest bucket; empty if nothing is sent."""


def ring_sec(num_bytes: float, num_ranks: int, link: Link) -> float:
    """Seconds for a ring: `2 (p - 1) a + 2 ((p - 1) / p) n / B`.

    Source: Patarasuk, Yuan 2009, doi:10.1016/j.jpdc.2008.09.002.
    """
    return 2 * (num_ranks - 1) * (link.latency_sec + num_bytes / num_ranks / link.bytes_per_sec)


def tree_sec(num_bytes: float, height_sec: float, link: Link) -> float:
    """Seconds for reduction and broadcast over two complementary binary trees, with messages cut into optimal parts.

    `height_sec` is the latency from a leaf to the root, h a. A pipeline of k parts takes `(h + k)(a + n / (k B))`,
    which the best k reduces to `(sqrt(h a) + sqrt(n / B))**2`. Two trees with half each use the whole bandwidth
    (Sanders, Speck, Traeff 2009, doi:10.1016/j.parco.2009.09.001; NCCL since 2.4).
    """
    if height_sec == 0 and num_bytes == 0:
        return 0.0
    return 2 * (math.sqrt(height_sec) + math.sqrt(num_bytes / link.bytes_per_sec)) ** 2


def all_reduce(num_bytes: float, nodes: int, ranks_per_node: int, network: Network) -> AllReduce:
    """The fastest of ring, double binary tree, and hierarchy; 0 s for one rank.

    The hierarchy reduce-scatters within each node, reduces each part between nodes (all ranks of a node share its
    links), and gathers within each node.
    """
    num_ranks = nodes * ranks_per_node
    if num_ranks == 1:
        return AllReduce(0.0, "")
    between, within = network.between, network.within
    if nodes == 1:
        assert within is not None
        height = math.ceil(math.log2(num_ranks)) * within.latency_sec
        choices = [
            AllReduce(ring_sec(num_bytes, num_ranks, within), "ring"),
            AllReduce(tree_sec(num_bytes, height, within), "tree"),
        ]
        return min(choices)
    assert between is not None
    heights = math.ceil(math.log2(nodes)) * between.latency_sec
    flat = between
    if ranks_per_node > 1:
        assert within is not None
        flat = Link(
            latency_sec=max(between.latency_sec, within.latency_sec),
            bytes_per_sec=min(between.bytes_per_sec, within.bytes_per_sec),
        )
        heights += math.ceil(math.log2(ranks_per_node)) * within.latency_sec
    choices = [
        AllReduce(ring_sec(num_bytes, num_ranks, flat), "ring"),
        AllReduce(tree_sec(num_bytes, heights, flat), "tree"),
    ]
    if ranks_per_node > 1 and within is not None:
        inside = ring_sec(num_bytes, ranks_per_node, within)  # scatter and gather are a ring's two halves
        choices.append(AllReduce(inside + ring_sec(num_bytes, nodes, between), "hierarchy"))
    return min(choices)


def gradients(layers: Sequence[tuple[float, float]]) -> list[Gradient]:
    """Gradients in backward order, from (parameters, FLOPs) of layers in forward order. Time is as their FLOPs."""
    total = sum(flops for _, flops in layers)
    done = accumulate(flops for _, flops in reversed(layers))
    return [
        Gradient(4 * parameters, passed / total if total else 1.0)
        for (parameters, _), passed in zip(reversed(layers), done, strict=True)
        if parameters
    ]


def ddp_buckets(grads: Sequence[Gradient]) -> list[Gradient]:
    """Buckets as in DistributedDataParallel: the gradient that reaches the limit closes the bucket."""
    buckets: list[Gradient] = []
    held = 0.0
    for grad in grads:
        held += grad.num_bytes
        if held >= (DDP_BUCKET_BYTES if buckets else DDP_FIRST_BUCKET_BYTES):
            buckets.append(Gradient(held, grad.ready))
            held = 0.0
    if held:
        buckets.append(Gradient(held, grads[-1].ready))
    return buckets


def synchronize(
    grads: Sequence[Gradient],
    backward_sec: float,
    cost: Callable[[float], AllReduce],
    *,
    backend: str,
    wire_bytes: float = 1.0,
) -> Sync:
    """Collectives of one step, one after the other: each starts when its gradients are ready and the last one ended.

    `wire_bytes` is the number of bytes sent per byte of fp32. Once per cycle Horovod fuses all ready gradients, each
    already compressed (horovod/torch/optimizer.py); DDP compresses full buckets.
    """
    if not grads:
        return Sync(0.0, 0.0, "")
    if backend == "horovod":
        return _fused(grads, backward_sec, cost, wire_bytes)
    free = busy = 0.0
    buckets = ddp_buckets(grads)
    for bucket in buckets:
        sec, _ = cost(bucket.num_bytes * wire_bytes)
        free = max(free, bucket.ready * backward_sec) + sec
        busy += sec
    largest = max(bucket.num_bytes for bucket in buckets)
    return Sync(max(0.0, free - backward_sec), busy, cost(largest * wire_bytes).algorithm)


def _fused(
    grads: Sequence[Gradient], backward_sec: float, cost: Callable[[float], AllReduce], wire_bytes: float
) -> Sync:
    free = busy = largest = 0.0
    position = 0
    while position < len(grads):
        begun = max(free, grads[position].ready * backward_sec)
        held = 0.0
        while position < len(grads) and grads[position].ready * backward_sec <= begun:
            num_bytes = grads[position].num_bytes * wire_bytes
            if held and held + num_bytes > HOROVOD_FUSION_BYTES:
                break
            held += num_bytes
            position += 1
        sec, _ = cost(held)
        busy += sec
        free = begun + max(sec, HOROVOD_CYCLE_SEC if position < len(grads) else 0.0)
        largest = max(largest, held)
    return Sync(max(0.0, free - backward_sec), busy, cost(largest).algorithm)
