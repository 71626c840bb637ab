"""The name of this machine."""

import platform
import re


def host_name() -> str:
    """The host's short name, with only those characters that a system's name may have."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", platform.node().split(".")[0]).lstrip("-._") or "unnamed"
