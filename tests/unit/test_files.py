import os
import signal
import subprocess
import sys

import pytest

from hpcai500.errors import InputError, MachineError
from hpcai500.files import digest, digest_tree, lock_file, new_folder, read_json, sole_writer, write_atomic


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "a.json"
    write_atomic(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomic(path, "new \udc80")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_full_disk_is_one_line_that_names_the_file_and_the_mend(small_disk):
    disk = small_disk(64)
    write_atomic(disk / "kept", "old")
    with pytest.raises(MachineError, match=r"small/kept: No space left on device; free some space"):
        write_atomic(disk / "kept", "x" * 200_000)
    assert (disk / "kept").read_text() == "old"


def test_a_new_folder_appears_whole_or_not_at_all_and_takes_no_name_that_is_in_use(tmp_path):
    folder = tmp_path / "runs" / "mine"
    with new_folder(folder) as made:
        (made / "a").write_text("first")
        assert not folder.exists()
    with pytest.raises(FileExistsError), new_folder(folder) as made:
        (made / "a").write_text("second")
    with (
        pytest.raises(InputError, match=rf"^{folder.parent}/other/x: wrong$"),
        new_folder(folder.parent / "other") as made,
    ):
        raise InputError("wrong", at=made / "x")
    assert (folder / "a").read_text() == "first"
    assert os.listdir(folder.parent) == ["mine"]


def test_json_that_is_missing_or_broken_is_named(tmp_path):
    with pytest.raises(InputError, match=r"absent\.json: No such file"):
        read_json(tmp_path / "absent.json")
    (tmp_path / "torn.json").write_text('{"a": ')
    with pytest.raises(InputError, match=r"torn\.json: not valid JSON"):
        read_json(tmp_path / "torn.json")


def test_digests_do_not_depend_on_the_order_of_keys():
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    # echo -n '{"a":1}' | sha256sum
    assert digest({"a": 1}) == "015abd7f5cc57a2dd94b7590f04ad8084273905ee33ec5cebeae62276a97f862"


def test_a_tree_digest_follows_code_and_ignores_the_rest(tmp_path):
    (tmp_path / "w.py").write_text("x = 1")
    before = digest_tree(tmp_path, (".py",))
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "w.py").write_text("cached")
    (tmp_path / "notes.txt").write_text("notes")
    assert digest_tree(tmp_path, (".py",)) == before
    (tmp_path / "w.py").write_text("x = 2")
    assert digest_tree(tmp_path, (".py",)) != before


def test_a_held_file_lets_one_process_in_at_a_time(tmp_path):
    path = tmp_path / "lock"
    script = f"from hpcai500.files import lock_file; lock_file(open({str(path)!r}, 'ab'), 0.3, 'taken')"

    def second():
        return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False)

    with path.open("ab") as file:
        lock_file(file, 1, "taken")
        assert "MachineError: taken; wait until it has finished" in second().stderr
    assert second().returncode == 0


def test_a_folder_has_one_writer_at_a_time_whom_a_kill_ends_as_well(tmp_path):
    folder = tmp_path / "data"
    script = f"""
import os, signal
from pathlib import Path
from hpcai500.files import sole_writer
with sole_writer(Path({str(folder)!r})):
    os.kill(os.getpid(), signal.SIGKILL)
"""

    def second():
        return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False)

    with sole_writer(folder):
        assert "another process is preparing data there; wait until it has finished, or stop it" in second().stderr
    assert not list(folder.iterdir())
    assert second().returncode == -signal.SIGKILL
    with sole_writer(folder):
        pass
    assert not list(folder.iterdir())
