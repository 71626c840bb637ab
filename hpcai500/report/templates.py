"""Pages as one HTML file each: a template of `web/` with its styles and scripts set into it."""

from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from typing import Any

import jinja2

Filters = Mapping[str, Callable[..., Any]]


def render_page(name: str, filters: Filters, *, styles: Sequence[str], **values: Any) -> str:
    """`web/NAME.html.j2` with `styles`, files of `web/`, and with the scripts `common.js` and `NAME.js`."""
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= filters
    return environment.from_string(_web(f"{name}.html.j2")).render(
        style="".join(map(_web, styles)), script=_web("common.js") + _web(f"{name}.js"), **values
    )


def _web(name: str) -> str:
    return (files("hpcai500.report") / "web" / name).read_text(encoding="utf-8")
