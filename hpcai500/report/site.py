"""A site's profile as TOML."""

import json

from hpcai500.spec.site import Site


def site_toml(site: Site) -> str:
    """The profile as a file that gives every key."""
    lines = [f"system = {_toml(site.system)}"]
    for table, values in site.model_dump(mode="json", exclude={"system"}).items():
        lines += ["", f"[{table}]", *(f"{key} = {_toml(value)}" for key, value in values.items())]
    return "\n".join(lines) + "\n"


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, dict):
        inside = ", ".join(f"{_toml(key)} = {_toml(item)}" for key, item in value.items())
        return f"{{ {inside} }}" if inside else "{}"
    return json.dumps(value, ensure_ascii=False)
