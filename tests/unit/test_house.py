"""Rules of the house that no linter knows."""

import ast
from pathlib import Path

import hpcai500

PACKAGE = Path(hpcai500.__file__).parent

ROOMS = {"cli", "launch", "ranks", "system"}
"""Rooms that may read the environment."""
PROCESSES = {
    "micro/worker.py", "train/build.py", "train/worker.py", "validate/agent/children.py", "validate/agent/main.py",
    "validate/agent/stages/collectives.py", "validate/agent/stages/health_host.py", "validate/agent/stages/links.py",
}  # fmt: skip
"""What a started process runs: it hands the environment that its launcher gave it to `ranks`."""
USERS_FILES = {"spec/site.py"}
"""A user's own profiles lie where XDG_CONFIG_HOME says."""


def reads_environment(path: Path) -> bool:
    names = {"environ", "environb", "getenv", "putenv", "unsetenv"}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and node.attr in names and ast.unparse(node.value) == "os":
            return True
        if isinstance(node, ast.ImportFrom) and node.module == "os" and names & {name.name for name in node.names}:
            return True
    return False


def test_the_environment_is_read_only_where_processes_begin_and_start():
    readers = {str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py") if reads_environment(path)}
    assert {name for name in readers if name.split("/")[0] not in ROOMS} <= PROCESSES | USERS_FILES


def test_functions_have_at_most_50_lines():
    root = PACKAGE.parent
    long = [
        f"{path.relative_to(root)}: {node.name}"
        for folder in ("hpcai500", "workloads", "examples", "slurm", "tools")
        for path in (root / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (node.end_lineno or 0) - node.lineno >= 50
    ]
    assert long == []
