"""Formats of a report, each found by its name or by the ending of a file."""

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from hpcai500.errors import InputError, SpecError, nearest


class Format(NamedTuple):
    name: str
    """The name that `--format` takes."""
    module: str
    """The module whose `render` makes the text; imported only if the format is asked for."""
    endings: tuple[str, ...] = ()
    """Endings of files in this format, e.g. `.html`; an empty one is for names without any."""
    is_detailed: bool = False
    """Whether it shows the curves and layers of entries, which take reading."""

    @property
    def render(self) -> Callable[..., str]:
        found: Callable[..., str] = import_module(self.module).render
        return found


def names(formats: Sequence[Format]) -> tuple[str, ...]:
    return tuple(found.name for found in formats)


def by_name(formats: Sequence[Format], name: str) -> Format:
    """The format `name`.

    Raises:
        SpecError: if there is none; it names the nearest.
    """
    found = next((one for one in formats if one.name == name), None)
    if found is None:
        raise SpecError(f"no format {name!r}", nearest(name, names(formats)))
    return found


def by_ending(formats: Sequence[Format], output: str) -> Format:
    """The format of a file by the ending of its name.

    Raises:
        InputError: if no format has that ending; it lists the endings.
    """
    suffix = Path(output).suffix.lower()
    found = next((one for one in formats if suffix in one.endings), None)
    if found is None:
        endings = ", ".join(ending for one in formats for ending in one.endings if ending)
        hint = f"end it in one of {endings}, or add --format"
        raise InputError(f"--output {output}: no format has the ending {suffix}", hint)
    return found
