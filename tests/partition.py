"""A validation's folder made by hand: a healthy partition with known noise, to be spoilt by tests."""

import random
import re
from itertools import combinations
from pathlib import Path

from hpcai500.validate.files import Measurement, Plan, Trouble, append

STAGES = ("inventory", "micro", "links")


class Partition:
    """`found` holds what each stage wrote; tests change it and then `write` it."""

    def __init__(self, num_nodes, *, stages=STAGES, num_gpus=1, noise=0.005, seed=0, rounds=None):
        self.random = random.Random(seed)
        self.noise = noise
        self.nodes = [f"node{number:04d}" for number in range(1, num_nodes + 1)]
        self.plan = Plan(
            system="testbox", partition="batch", level=2, stages=stages, nodes=tuple(self.nodes),
            started="2026-11-22T19:00:00Z", version="0.1.0",
        )  # fmt: skip
        self.found: list[Measurement | Trouble] = []
        for name in self.nodes:
            if "inventory" in stages:
                self.add("inventory", "layer4.torch", "2.15", name, better="same", unit="")
            for index in range(num_gpus if "micro" in stages else 0):
                self.add("micro", "gemm_bf16_flops", self.near(7e14), name, device=f"gpu{index}")
                self.add("micro", "copy_bytes_per_sec", self.near(3e12), name, device=f"gpu{index}", unit="B/s")
        if "links" in stages:
            for pair in self.pairs(rounds):
                self.add("links", "link_bytes_per_sec", self.near(2.4e10), *pair, unit="B/s")

    def pairs(self, rounds):
        if rounds is None:
            return list(combinations(self.nodes, 2))
        size = len(self.nodes)
        return sorted(
            {
                tuple(sorted((self.nodes[i], self.nodes[(i + d) % size])))
                for d in range(1, rounds + 1)
                for i in range(size)
            }
        )

    def near(self, value):
        return value * self.random.gauss(1, self.noise)

    def add(self, stage, metric, value, *nodes, **fields):
        fields = {"better": "higher", "unit": "FLOPS", "nodes": tuple(sorted(nodes)), **fields}
        self.found.append(Measurement(stage=stage, metric=metric, value=value, **fields))

    def change(self, factor, **where):
        """Multiply, or where `factor` is text replace, the values of measurements whose fields are `where`."""
        node = where.pop("node", None)

        def is_meant(one):
            return (node is None or node in one.nodes) and all(getattr(one, key) == at for key, at in where.items())

        def changed(one):
            value = factor if isinstance(factor, str) else one.value * factor
            return one.model_copy(update={"value": value})

        self.found = [changed(one) if isinstance(one, Measurement) and is_meant(one) else one for one in self.found]
        return self

    def drop(self, is_dropped):
        self.found = [one for one in self.found if not is_dropped(one)]
        return self

    def write(self, folder: Path) -> Path:
        """One file a node, pairs with their first; the folder."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "plan.json").write_text(self.plan.model_dump_json())
        writers: dict[str, list] = {}
        for one in self.found:
            writers.setdefault(one.nodes[0] if one.nodes else "job", []).append(one)
        for writer, found in writers.items():
            append(folder, re.sub("[^a-z0-9]", "_", writer), found)
        return folder
