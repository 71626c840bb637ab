"""The nine layers of an HPC AI system, and the layer that each table of settings belongs to."""

from enum import IntEnum


class Layer(IntEnum):
    HARDWARE = 1
    OPERATING_SYSTEM = 2
    COMMUNICATION_LIBRARIES = 3
    ACCELERATION_LIBRARIES = 4
    FRAMEWORK = 5
    PROGRAMMING_MODEL = 6
    WORKLOAD_IMPLEMENTATION = 7
    HYPER_PARAMETERS = 8
    PROBLEM_DOMAIN = 9

    @property
    def title(self) -> str:
        return self.name.replace("_", " ").capitalize()


LAYER_OF_TABLE = {
    "execution": Layer.PROGRAMMING_MODEL,
    "model": Layer.WORKLOAD_IMPLEMENTATION,
    "data": Layer.WORKLOAD_IMPLEMENTATION,
    "batch": Layer.HYPER_PARAMETERS,
    "optimizer": Layer.HYPER_PARAMETERS,
    "schedule": Layer.HYPER_PARAMETERS,
    "problem": Layer.PROBLEM_DOMAIN,
}


def layer_of(key: str) -> Layer:
    """The layer of a dotted settings key such as `optimizer.momentum`."""
    return LAYER_OF_TABLE[key.split(".", 1)[0]]
