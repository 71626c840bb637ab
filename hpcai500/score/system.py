"""system.json as rules and comparisons read it: nine layers, of which the nodes of a run share the last three."""

from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field

from hpcai500.files import read_json
from hpcai500.spec.models import Frozen, parse

NODE_LAYERS = tuple(str(number) for number in range(1, 7))
RUN_LAYERS = ("7", "8", "9")


class Nodes(Frozen):
    """Equal nodes."""

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

    schema_version: int
    nodes: tuple[Nodes, ...] = Field(min_length=1)
    """The most common kind first."""
    differences: tuple[Difference, ...] = ()
    earlier_nodes: tuple[Nodes, ...] = ()
    """Of earlier starts of a run that was resumed elsewhere."""
    layers: dict[str, dict[str, Any]] = Field(default_factory=dict)
    stated: tuple[int, ...] = ()
    """Layers that nobody captured, as a foreign program states them."""

    def layer(self, number: int) -> dict[str, Any]:
        """Of the run, or of most of its nodes; empty where it was not captured."""
        key = str(number)
        return self.layers.get(key, {}) if key in RUN_LAYERS else self.nodes[0].layers.get(key, {})

    @property
    def missing_layers(self) -> list[str]:
        nodes = [key for key in NODE_LAYERS if not all(group.layers.get(key) for group in self.nodes)]
        return nodes + [key for key in RUN_LAYERS if not self.layers.get(key)]

    def frameworks(self) -> dict[str, str]:
        """Layer 5 without what hardware decides: public versions, `2.15.0` of `2.15.0+cu130`; Horovod where used."""
        found = self.layer(5)
        names = ["torch", "torchvision"] + ["horovod"] * (self.layer(6).get("backend") == "horovod")
        return {name: str(found.get(name)).split("+")[0] for name in names}


def read_system(path: Path) -> SystemRecord:
    return parse(SystemRecord, read_json(path), str(path))
