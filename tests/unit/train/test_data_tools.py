"""The guard of training's processes: what the digest of the code leaves out is not imported."""

import subprocess
import sys

import pytest

GUARDED = """
import sys
sys.path.insert(0, {parent!r})
from hpcai500.errors import SpecError
from hpcai500.train.data_tools import forbid, forbid_data_tools

{code}
"""


@pytest.fixture
def run(tmp_path):
    """Run code in a fresh Python, beside a workload `mine` with data tools."""
    tools = tmp_path / "mine" / "data_tools"
    tools.mkdir(parents=True)
    (tmp_path / "mine" / "model.py").write_text("x = 1\n")
    (tools / "prepare.py").write_text("print('executed')\n")

    def run(code):
        text = GUARDED.format(parent=str(tmp_path), code=code)
        return subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=120, check=False)

    return run


@pytest.mark.parametrize(
    "importing",
    [
        "import mine.data_tools.prepare",
        "__import__('mine.data' + '_tools.prepare')",
        "import importlib; importlib.import_module('mine.data_' + 'tools')",
    ],
)
def test_a_guarded_process_refuses_the_data_tools_however_they_are_named(run, importing):
    done = run(f"forbid_data_tools('mine'); import mine.model; {importing}")
    assert "SpecError: training imports mine.data_tools" in done.stderr
    assert "executed" not in done.stdout
    assert done.returncode == 1


def test_what_was_imported_before_the_guard_is_refused_too(run):
    done = run("import mine.data_tools.prepare; forbid_data_tools('mine')")
    assert "SpecError: training imports mine.data_tools" in done.stderr


def test_an_unguarded_process_imports_them(run):
    done = run("import mine.data_tools.prepare")
    assert (done.stdout, done.returncode) == ("executed\n", 0)


def test_a_data_loader_s_process_is_guarded_as_its_parent_is(run):
    code = """
import torch
from hpcai500.train.loading import Loader


def read(keys):
    __import__("mine.data_" + "tools.prepare")


forbid_data_tools("mine")
list(Loader(read, num_workers=1, pin_memory=False).read([[1]]))
"""
    done = run(code)
    assert "SpecError: training imports mine.data_tools" in done.stderr
    assert "executed" not in done.stdout


def test_a_spawned_process_is_guarded_when_it_starts(run):
    done = run(
        "from hpcai500.train.loading import _start_process\n"
        "_start_process(0, forbidden=('mine.data_tools',))\n"
        "import mine.data_tools"
    )
    assert "SpecError: training imports mine.data_tools" in done.stderr


def test_the_error_says_where_the_import_may_stand(run):
    done = run(
        "forbid('mine.data_tools')\ntry:\n    import mine.data_tools\nexcept SpecError as error:\n    print(error)"
    )
    assert "prepare_data, synthesize_data, verify_data, show_sample" in done.stdout
