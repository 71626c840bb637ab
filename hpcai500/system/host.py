"""The name of this machine."""

import platform
import re


def host_name() -> str:
    """The host's short name, as a system may be named in a ranking."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", platform.node().split(".")[0]).lstrip("-._") or "unnamed"
