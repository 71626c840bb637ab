"""system.json as rules and comparisons read it: nine layers, the last three shared by all nodes of a run."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field

from hpcai500.files import read_json
from hpcai500.spec.models import Frozen, parse

NODE_LAYERS = tuple(str(number) for number in range(1, 7))
RUN_LAYERS = ("7", "8", "9")


class Nodes(Frozen):
    """Nodes that are equal in all layers."""

    count: int = Field(ge=1)
    hosts: tuple[str, ...]
    layers: dict[str, dict[str, Any]]


class Difference(Frozen):
    hosts: tuple[str, ...]
    layer: int
    key: str
    common: Any
    here: Any


class SystemRecord(Frozen):
    model_config = ConfigDict(extra="ignore")

    schema_version: Literal[1]
    nodes: tuple[Nodes, ...] = Field(min_length=1)
    """The most common kind first."""
    earlier_nodes: tuple[Nodes, ...] = ()
    """Nodes of earlier starts of a run that was resumed elsewhere."""
    layers: dict[str, dict[str, Any]] = Field(default_factory=dict)
    stated: tuple[int, ...] = ()
    """Numbers of layers that were not captured but stated by a foreign program."""

    def layer(self, number: int) -> dict[str, Any]:
        """The layer of the run, or of most of its nodes; empty if it was not captured."""
        key = str(number)
        return self.layers.get(key, {}) if key in RUN_LAYERS else self.nodes[0].layers.get(key, {})

    @property
    def kinds(self) -> tuple[Nodes, ...]:
        """Every kind of node, including those of earlier starts."""
        return (*self.nodes, *self.earlier_nodes)

    @property
    def differences(self) -> list[Difference]:
        """How other nodes differ from the most common kind, computed anew: those in the file are not read."""
        common = self.nodes[0].layers
        return [
            Difference(hosts=kind.hosts, layer=int(number), key=key, common=usual, here=here)
            for kind in self.kinds[1:]
            for number in NODE_LAYERS
            for key, usual, here in _unequal(common.get(number, {}), kind.layers.get(number, {}))
        ]

    @property
    def missing_layers(self) -> list[str]:
        nodes = [key for key in NODE_LAYERS if not all(kind.layers.get(key) for kind in self.nodes)]
        return nodes + [key for key in RUN_LAYERS if not self.layers.get(key)]

    def frameworks(self) -> dict[str, tuple[str, ...]]:
        """Public versions of Layer 5's frameworks, `2.15.0` for `2.15.0+cu130`, with Horovod if it was used.

        Several per framework if nodes differ. Empty if none was captured.
        """
        kinds = [kind.layers["5"] for kind in self.kinds if kind.layers.get("5")]
        names = ["torch", "torchvision"] + ["horovod"] * (self.layer(6).get("backend") == "horovod")
        return {
            name: tuple(sorted({str(found.get(name)).split("+")[0] for found in kinds})) for name in names if kinds
        }


def flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and the values that are not tables; the table of FLOPs per layer counts as one value."""
    if isinstance(value, dict) and value and not key.endswith(("layer_flops", "layer_parameters")):
        for name, inner in value.items():
            yield from flat(inner, f"{key}.{name}" if key else name)
    else:
        yield key, value


def _unequal(common: dict[str, Any], other: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Dotted key and both values, for each difference of two nested tables."""
    here, there = dict(flat(common)), dict(flat(other))
    for key in sorted({*here, *there}):
        if here.get(key) != there.get(key):
            yield key, here.get(key), there.get(key)


def read_system(path: Path) -> SystemRecord:
    return system_of(read_json(path), path)


def system_of(record: Any, path: Path) -> SystemRecord:
    """The system that a record of `system.json` describes; errors name `path`."""
    return parse(SystemRecord, record, path)
