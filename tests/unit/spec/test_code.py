"""Layer 7's identity: what is in the digest of a workload's code, and what may not hide from it."""

import shutil

import pytest

from hpcai500.errors import SpecError
from hpcai500.files import digest_tree
from hpcai500.spec.code import CODE, code_files, digest_code, require_data_tools_apart
from hpcai500.spec.workload import shipped_workloads

WORKLOAD = '''"""The data_tools of this folder are not imported by training."""

from .model import build


class Mine:
    @classmethod
    def prepare_data(cls):
        """By data_tools."""
        from .data_tools.prepare import prepare

        return prepare()
'''


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "mine"
    (made / "data_tools").mkdir(parents=True)
    (made / "workload.toml").write_text("title = 'Mine'\n")
    (made / "workload.py").write_text(WORKLOAD)
    (made / "model.py").write_text("def build(): ...\n")
    (made / "data_tools" / "prepare.py").write_text("def prepare(): ...\n")
    return made


def test_the_digest_leaves_out_what_only_makes_or_draws_data(folder):
    before = digest_code(folder)
    (folder / "data_tools" / "prepare.py").write_text("def prepare(): return 1\n")
    (folder / "data_tools" / "picture.py").write_text("")
    (folder / "README.md").write_text("notes")
    assert digest_code(folder) == before
    (folder / "model.py").write_text("def build(): return 1\n")
    assert digest_code(folder) != before


def test_without_data_tools_the_digest_is_that_of_all_code_as_it_was_before(folder):
    shutil.rmtree(folder / "data_tools")
    assert digest_code(folder) == digest_tree(folder, CODE)


def test_a_folder_of_that_name_deeper_down_is_in_the_digest(folder):
    (folder / "model" / "data_tools").mkdir(parents=True)
    (folder / "model" / "data_tools" / "x.py").write_text("")
    assert folder / "model" / "data_tools" / "x.py" in code_files(folder)


def test_data_methods_may_import_the_data_tools(folder):
    require_data_tools_apart(folder)


@pytest.mark.parametrize("shipped", shipped_workloads(), ids=lambda folder: folder.name)
def test_the_shipped_workloads_keep_their_data_tools_apart(shipped):
    require_data_tools_apart(shipped)
    assert (shipped / "data_tools").is_dir()


@pytest.mark.parametrize(
    "code",
    [
        "from .data_tools.prepare import prepare",
        "from .data_tools import prepare",
        "from . import data_tools",
        "import mine.data_tools.prepare",
        "from mine.data_tools import prepare as p",
        "def loss():\n    from .data_tools.prepare import prepare",
        "import importlib\nimportlib.import_module('mine.data_tools.prepare')",
        "open('data_tools/prepare.py')",
        "import mine\nmine.data_tools.prepare",
        "class Mine:\n    def loss(self):\n        from .data_tools.prepare import prepare",
        "class Mine:\n    def prepare_data(self):\n        from .data_tools.prepare import prepare",
    ],
)
def test_training_code_that_uses_the_data_tools_is_refused_with_its_line(folder, code):
    (folder / "model.py").write_text(f"{code}\n")
    with pytest.raises(SpecError, match=r"model\.py:\d+: uses data_tools, which the digest .* leaves out"):
        require_data_tools_apart(folder)


@pytest.mark.parametrize(
    "code",
    [
        "from .data_tools.prepare import prepare\n",
        "def prepare_data():\n    from .data_tools.prepare import prepare\n",
        "class Mine:\n    def loss(self):\n        from .data_tools.prepare import prepare\n",
        "class Mine:\n    def prepare_data(self):\n        return __import__('mine.data_tools.prepare')\n",
    ],
)
def test_in_workload_py_too_only_imports_in_data_methods_are_allowed(folder, code):
    (folder / "workload.py").write_text(code)
    with pytest.raises(SpecError, match=r"workload\.py:\d+: uses data_tools"):
        require_data_tools_apart(folder)


def test_a_link_into_the_data_tools_is_refused(folder):
    (folder / "helpers").symlink_to("data_tools")
    with pytest.raises(SpecError, match="helpers: leads into data_tools"):
        require_data_tools_apart(folder)


def test_a_link_to_any_folder_is_refused(folder, tmp_path):
    """The digest does not follow it, but an import does."""
    (tmp_path / "outside").mkdir()
    (folder / "helpers").symlink_to(tmp_path / "outside")
    with pytest.raises(SpecError, match="helpers: is a link to a folder"):
        require_data_tools_apart(folder)


def test_bytes_are_searched_too(folder):
    (folder / "model.py").write_text('SOURCE = open(b"data_tools/prepare.py").read()\n')
    with pytest.raises(SpecError, match=r"model\.py:1: uses data_tools"):
        require_data_tools_apart(folder)


def test_code_that_does_not_parse_is_named_with_its_line(folder):
    (folder / "model.py").write_text("from .data_tools import (\n")
    with pytest.raises(SpecError, match=r"model\.py:1: "):
        require_data_tools_apart(folder)
