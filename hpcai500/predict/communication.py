"""What averaging gradients costs: all-reduce by latency and bandwidth, and how much of it the backward pass hides."""

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
    """Of one message."""
    bytes_per_sec: float = Field(gt=0)
    """In each direction; between nodes: of all links of one node together."""

    def scaled(self, factor: float) -> "Link":
        """`factor` times as fast."""
        return Link(latency_sec=self.latency_sec / factor, bytes_per_sec=self.bytes_per_sec * factor)


class Network(Frozen):
    """None where a link is unknown: then nothing may be sent over it."""

    between: Link | None
    """Nodes."""
    within: Link | None
    """A node: from each rank to its neighbour."""


class AllReduce(NamedTuple):
    sec: float
    algorithm: str


class Gradient(NamedTuple):
    """Of one layer, in the order of the backward pass."""

    num_bytes: float
    """In fp32."""
    ready: float
    """When it is complete, as a fraction of the backward pass."""


class Sync(NamedTuple):
    exposed_sec: float
    """From the end of the backward pass to the last gradient's average."""
    busy_sec: float
    """All collectives of the step."""
    algorithm: str
    """Of the largest bucket; empty where nothing is sent."""


def ring_sec(num_bytes: float, num_ranks: int, link: Link) -> float:
    """`2 (p - 1) a + 2 ((p - 1) / p) n / B` (Patarasuk, Yuan 2009, doi:10.1016/j.jpdc.2008.09.002)."""
    return 2 * (num_ranks - 1) * (link.latency_sec + num_bytes / num_ranks / link.bytes_per_sec)


def tree_sec(num_bytes: float, height_sec: float, link: Link) -> float:
    """Reduction and broadcast, each over two complementary binary trees whose messages are cut into best-sized parts.

    `height_sec` is the latency from a leaf to the root, h a. A pipeline of k parts takes `(h + k)(a + n / (k B))`, at
    the best k `(sqrt(h a) + sqrt(n / B))**2`; two trees that each carry half use the whole bandwidth (Sanders, Speck,
    Traeff 2009, doi:10.1016/j.parco.2009.09.001; NCCL since 2.4).
    """
    if height_sec == 0 and num_bytes == 0:
        return 0.0
    return 2 * (math.sqrt(height_sec) + math.sqrt(num_bytes / link.bytes_per_sec)) ** 2


def all_reduce(num_bytes: float, nodes: int, ranks_per_node: int, network: Network) -> AllReduce:
    """The cheapest of ring, double binary tree, and hierarchy; 0 for one rank.

    The hierarchy scatters sums within each node, reduces each part over the nodes, all ranks of a node sharing its
    links, and gathers within each node.
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
    """Of layers in forward order, each (parameters, FLOPs): the time of the backward pass follows their FLOPs."""
    total = sum(flops for _, flops in layers)
    done = accumulate(flops for _, flops in reversed(layers))
    return [
        Gradient(4 * parameters, passed / total if total else 1.0)
        for (parameters, _), passed in zip(reversed(layers), done, strict=True)
        if parameters
    ]


def ddp_buckets(grads: Sequence[Gradient]) -> list[Gradient]:
    """As DistributedDataParallel fills them: a bucket is closed by the gradient that brings it to its limit."""
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
    """One step's collectives, one after the other, each begun when its gradients are there and the last has ended.

    `wire_bytes` is what is sent for each byte of fp32. Horovod fuses, once a cycle, all that is ready; it compresses
    each gradient before that (horovod/torch/optimizer.py), DDP its full buckets.
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
