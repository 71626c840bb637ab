"""Layer 7's identity: a digest over the files of a workload that training can execute.

Tooling that only makes, prepares, checks or draws data lies in the sub-folder `data_tools/`. The digest leaves it
out, so that a better picture does not make old results incomparable. In return, training may not import it: the
source is searched before a run starts, and the ranks refuse the import (`hpcai500.train.data_tools`).
"""

import ast
import hashlib
from collections.abc import Iterator
from pathlib import Path

from hpcai500.errors import SpecError
from hpcai500.files import digest_names, source_files

CODE = (".py", ".toml")
"""Suffixes of the files in the digest."""
DATA_TOOLS = "data_tools"
"""Sub-folder that the digest leaves out."""
DATA_METHODS = ("prepare_data", "synthesize_data", "verify_data", "show_sample")
"""Methods of a `Workload` that the data commands call and training does not."""


def code_files(folder: Path) -> list[Path]:
    """Files of a workload that are in its digest."""
    return [path for path in source_files(folder, CODE) if path.relative_to(folder).parts[0] != DATA_TOOLS]


def digest_files(folder: Path, files: list[Path]) -> str:
    """SHA-256, in hex, over names and bytes of `files` of `folder`."""
    return digest_names(
        {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    )


def digest_code(folder: Path) -> str:
    return digest_files(folder, code_files(folder))


def require_data_tools_apart(folder: Path) -> None:
    """Refuse a workload whose code could use its data tools in training.

    Only the data methods of a class in `workload.py` may import them, inside the method.

    Raises:
        SpecError: naming the file and line of another use, or a link into the folder.
    """
    tools = (folder / DATA_TOOLS).resolve()
    for path in folder.rglob("*"):
        if path.is_symlink() and path.resolve().is_relative_to(tools):
            raise SpecError(f"leads into {DATA_TOOLS}, which the digest of the code leaves out", "remove it", at=path)
        if path.is_symlink() and path.is_dir():
            raise SpecError(
                "is a link to a folder, which the digest of the code leaves out", "copy the folder", at=path
            )
    for path in code_files(folder):
        source = path.read_bytes()
        if path.suffix != ".py" or DATA_TOOLS.encode() not in source:
            continue
        try:
            tree = ast.parse(source, str(path))
        except SyntaxError as error:
            raise SpecError(f"{error.msg}", at=path, line=error.lineno) from error
        for line in _uses(tree, may_import=path == folder / "workload.py"):
            raise SpecError(
                f"uses {DATA_TOOLS}, which the digest of the code leaves out",
                f"import it only inside {', '.join(DATA_METHODS[:-1])} or {DATA_METHODS[-1]} of workload.py, or move "
                "what training needs out of it",
                at=path,
                line=line,
            )


def _uses(tree: ast.Module, *, may_import: bool) -> Iterator[int]:
    """Lines that name the data tools, other than imports in data methods and docstrings."""
    allowed = {id(node) for node in _imports_of_data_methods(tree)} if may_import else set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            allowed.add(id(node.value))  # a docstring; ast.walk visits parents first
        if id(node) not in allowed and any(DATA_TOOLS in name for name in _names(node)):
            yield getattr(node, "lineno", 1)


def _imports_of_data_methods(tree: ast.Module) -> Iterator[ast.AST]:
    methods = (
        method
        for klass in tree.body
        if isinstance(klass, ast.ClassDef)
        for method in klass.body
        if isinstance(method, ast.FunctionDef) and method.name in DATA_METHODS
    )
    for method in methods:
        for node in ast.walk(method):
            if isinstance(node, ast.Import | ast.ImportFrom):
                yield node
                yield from node.names


def _names(node: ast.AST) -> Iterator[str]:
    """Names and texts in which `node` itself could name a module."""
    match node:
        case ast.ImportFrom(module=str(module)):
            yield module
        case ast.alias(name=name):
            yield name
        case ast.Name(id=name) | ast.Attribute(attr=name):
            yield name
        case ast.Constant(value=str(text)):
            yield text
        case ast.Constant(value=bytes(text)):
            yield text.decode("latin-1")
