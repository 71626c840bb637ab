"""Print the oldest version of each package that pyproject.toml allows, as pip takes them."""

import re
import tomllib
from pathlib import Path

PROJECT = tomllib.loads(Path("pyproject.toml").read_text())["project"]

for requirement in PROJECT["dependencies"]:
    found = re.match(r"([\w.-]+)>=([\d.]+)", requirement)
    assert found, f"pyproject.toml: {requirement} has no oldest version"
    print("{}=={}".format(*found.groups()))
