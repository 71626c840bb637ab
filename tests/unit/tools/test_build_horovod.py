import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "tools"))
import build_horovod
from build_horovod import Missing, Parts, Torch

needs_compiler = pytest.mark.skipif(not shutil.which("g++"), reason="g++ is not installed")


def parts(includes=(), **fields) -> Parts:
    given = {"version": "2.15.0", "cuda": None, "includes": [str(place) for place in includes], "abi": True}
    torch = Torch(**{**given, "has_gpu": False, "capability": None, **fields})
    return Parts(torch, shutil.which("g++") or "g++", "Open MPI 4", None, None)


@needs_compiler
@pytest.mark.parametrize(("needed", "standard"), [("201402L", "c++17"), ("201703L", "c++20"), ("202002L", "c++23")])
def test_the_standard_is_the_oldest_in_which_torch_s_headers_compile(tmp_path, needed, standard):
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "extension.h").write_text(f"#if __cplusplus <= {needed}\n#error too old\n#endif\n")
    assert build_horovod.find_standard(parts([tmp_path]), tmp_path) == standard


@needs_compiler
def test_a_compiler_too_old_for_torch_is_told_with_its_own_words(tmp_path):
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "extension.h").write_text("#error of tomorrow\n")
    with pytest.raises(Missing, match=r"in none of c\+\+17, c\+\+20, c\+\+23: .*of tomorrow"):
        build_horovod.find_standard(parts([tmp_path]), tmp_path)


@needs_compiler
def test_a_kept_wheel_is_for_one_torch_alone():
    assert parts().key() == parts().key()
    keys = {parts().key(), parts(version="2.16.0").key(), parts(cuda="13.2").key(), parts(abi=False).key()}
    keys.add(parts()._replace(quick=True).key())
    assert len(keys) == 5


def test_all_that_is_missing_is_named_at_once_with_how_to_get_it(monkeypatch):
    for name in ("PATH", "CXX"):
        monkeypatch.setenv(name, "")
    with pytest.raises(Missing) as error:
        build_horovod.find_parts(force_nccl=False)
    lines = str(error.value).splitlines()
    assert lines[0].startswith("no C++ compiler: apt install g++")
    assert lines[1].startswith("horovod: no mpirun on PATH: apt install openmpi-bin")


def test_a_place_where_no_wheel_can_be_kept_is_refused_before_the_build(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(Missing, match="cannot be kept in .*Not a directory; give another --cache"):
        build_horovod.kept_wheel(parts(), tmp_path / "file" / "cache")


def test_torch_s_own_nccl_gets_the_name_that_a_linker_looks_for(tmp_path):
    (tmp_path / "home" / "lib").mkdir(parents=True)
    (tmp_path / "home" / "lib" / "libnccl.so.2").touch()
    found = build_horovod.linkable_nccl(tmp_path / "home", tmp_path / "new")
    assert (found / "lib" / "libnccl.so").resolve() == tmp_path / "home" / "lib" / "libnccl.so.2"
