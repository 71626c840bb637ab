"""The ExtremeWeather data set as it is published (Racah et al. 2017): its files, their check, and the manifest."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from hpcai500.spec.models import Frozen

CHANNELS = (
    "PRECT", "PS", "PSL", "QREFHT", "T200", "T500", "TMQ", "TREFHT",
    "TS", "U850", "UBOT", "V850", "VBOT", "Z1000", "Z200", "ZBOT",
)  # fmt: skip
CLASS_NAMES = ("tropical depression", "tropical cyclone", "extratropical cyclone", "atmospheric river")
"""In the order of the labels 0 to 3."""
MAX_BOXES = 15
