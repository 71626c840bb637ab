"""Archives of results: whole ones verify, changed ones are named, hostile ones harm nothing."""

import json
import stat
import zipfile
from contextlib import suppress

import pytest
from honest import edit_json, honest_run

from hpcai500.errors import InputError, OccupiedError, ShortfallError
from hpcai500.score import package
from hpcai500.score.compliance import check
from hpcai500.score.package import CONTENTS, pack, unpack, verify


@pytest.fixture
def archive(make_spec, tmp_path):
    """Two runs, packed."""
    folders = [honest_run(make_spec(seed=seed)) for seed in range(2)]
    pack(folders, tmp_path / "set.zip")
    return tmp_path / "set.zip"


def rewrite(source, target, change):
    """Copy an archive entry by entry; `change(name, content)` gives what to write, or None to drop."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        for info in old.infolist():
            content = change(info.filename, old.read(info))
            if content is not None:
                new.writestr(info, content)
    return target


def test_a_packed_set_verifies_unpacks_and_checks_as_before(archive, tmp_path, hpcai500):
    assert verify(archive) == []
    unpack(archive, tmp_path / "out")
    (report,) = check([tmp_path / "out" / "runs"])
    assert [breach.rule for breach in report.breaches] == ["5.2"]
    assert list((tmp_path / "out" / "workloads").glob("*/image_classification/workload.py"))
    assert hpcai500("verify", archive)[0] == 0
    with pytest.raises(OccupiedError):
        unpack(archive, tmp_path / "out")


def test_the_same_files_give_the_same_bytes_and_nothing_is_overwritten(archive, tmp_path, hpcai500):
    code, out, _ = hpcai500("package", tmp_path / "results", "--output", tmp_path / "again.zip")
    assert (code, "files" in out) == (0, True)
    assert (tmp_path / "again.zip").read_bytes() == archive.read_bytes()
    assert hpcai500("package", tmp_path / "results", "--output", archive)[0] == 2


def test_every_changed_missing_or_added_file_is_named(archive, tmp_path, hpcai500):
    with zipfile.ZipFile(archive) as source:
        names = [name for name in source.namelist() if name != CONTENTS]
    for number, victim in enumerate(names):
        changed = rewrite(
            archive, tmp_path / f"{number}.zip", lambda name, content, v=victim: content + b" " * (name == v)
        )
        assert verify(changed) == [f"{victim!r}: altered"]
    dropped = rewrite(archive, tmp_path / "d.zip", lambda name, content: None if name == names[0] else content)
    assert verify(dropped) == [f"{names[0]!r}: missing"]
    with zipfile.ZipFile(dropped, "a") as more:
        more.writestr("runs/extra.txt", "x")
    assert "'runs/extra.txt': not named in package.json" in verify(dropped)
    assert hpcai500("verify", dropped)[0] == 1
    with pytest.raises(ShortfallError):
        unpack(dropped, tmp_path / "refused")
    unpack(dropped, tmp_path / "taken", unverified=True)


@pytest.mark.parametrize("position", [0.3, 0.5, 0.7])
def test_a_flipped_byte_of_the_archive_itself_is_no_traceback(archive, position):
    content = bytearray(archive.read_bytes())
    content[int(len(content) * position)] ^= 0xFF
    archive.write_bytes(content)
    with suppress(InputError):
        assert verify(archive)


@pytest.mark.parametrize(
    "name",
    [
        "../outside.txt", "/etc/passwd", "runs/../../x", "runs\\..\\x", "C:/x", "runs//x", "./x", "runs/",
        "runs/<script>alert(1)</script>", "runs/a b", "runs/\x1b[2J", "runs/x\n", "r" * 2_000,
    ],
)  # fmt: skip
def test_hostile_names_are_refused_and_shown_harmless(archive, tmp_path, name):
    with zipfile.ZipFile(archive, "a") as source:
        source.writestr(zipfile.ZipInfo(name), "x")
    (fault,) = verify(archive)
    assert "not a name" in fault
    assert not set("<>\x1b\n") & set(fault)
    for unverified in (False, True):
        with pytest.raises(ShortfallError):
            unpack(archive, tmp_path / "out", unverified=unverified)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "outside.txt").exists()


def test_links_are_refused(archive, tmp_path):
    info = zipfile.ZipInfo("runs/link")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(archive, "a") as source:
        source.writestr(info, "/etc/passwd")
    assert "is a link" in verify(archive)[0]
    with pytest.raises(ShortfallError):
        unpack(archive, tmp_path / "out", unverified=True)


def test_bombs_are_refused_before_they_are_unpacked(archive, tmp_path, monkeypatch):
    bomb = tmp_path / "bomb.zip"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as target:
        target.writestr("runs/zeros", bytes(64 * 2**20))
    monkeypatch.setattr(package, "MOST_RATIO", 500)
    assert "would become" in verify(bomb)[0]
    monkeypatch.setattr(package, "MOST_BYTES", 1_000)
    assert any("would unpack to" in fault for fault in verify(archive))
    monkeypatch.setattr(package, "MOST_FILES", 2)
    assert "more than 2" in verify(archive)[0]


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_whose_memory_nobody_bounds_are_refused(archive, tmp_path, method):
    with zipfile.ZipFile(archive, "a") as source:
        source.writestr("runs/more", "x" * 1_000, compress_type=method)
    assert verify(archive) == ["'runs/more': packed by another method than deflate"]
    with pytest.raises(ShortfallError):
        unpack(archive, tmp_path / "out", unverified=True)


@pytest.mark.parametrize(
    ("names", "fault"),
    [
        (("runs/a", "runs/a/b"), "'runs/a/b': lies in what is a file too"),
        (("runs/a", "runs/A"), "'runs/A': stands twice"),
        ((f"runs/{'r' * 256}",), "not a name"),
    ],
)
def test_names_that_no_disk_can_hold_together_are_refused(archive, tmp_path, names, fault):
    with zipfile.ZipFile(archive, "a") as source:
        for name in names:
            source.writestr(name, "x")
    assert fault in verify(archive)[0]
    with pytest.raises(ShortfallError):
        unpack(archive, tmp_path / "out", unverified=True)


def test_a_record_too_large_to_be_one_is_refused(archive, tmp_path, monkeypatch):
    monkeypatch.setattr(package, "_MOST_JSON_BYTES", 100)
    assert "bytes are no record of a run" in verify(archive)[0]


@pytest.mark.parametrize("name", ["run.json", "result.json", "system.json", "events.log", "evaluation.json"])
def test_records_nested_without_end_are_one_line_and_no_traceback(make_spec, tmp_path, hpcai500, name):
    folder = honest_run(make_spec(seed=0))
    nested = "[" * 200_000
    (folder / name).write_text(f":::MLLOG {nested}" if name == "events.log" else nested)
    code, out, err = hpcai500("check", folder)
    assert code == 1
    assert "Traceback" not in out + err
    assert hpcai500("rank", tmp_path / "results")[0] in (0, 1, 2)


def test_what_a_record_says_cannot_steer_the_terminal(make_spec, hpcai500):
    folder = honest_run(make_spec(seed=0))
    layers = {"2": {"\x1b[1mkernel": "\x1b[31m5.4"}, "6": {"precision": "\x1b[5mfp8"}}
    other = {"count": 1, "hosts": ["\x1b[2Jn1"], "layers": layers}
    edit_json(folder / "system.json", lambda system: system["nodes"].append(other))
    _, out, err = hpcai500("check", folder)
    assert "differ in Layer 2" in out
    assert "\x1b" not in out + err


@pytest.mark.parametrize("contents", [b"[" * 100_000, b"{}", b"null", b'{"schema_version": 1, "files": {"x": 3}}'])
def test_contents_that_are_no_contents_are_one_line(archive, tmp_path, contents):
    broken = rewrite(archive, tmp_path / "b.zip", lambda name, content: contents if name == CONTENTS else content)
    with pytest.raises(InputError):
        verify(broken)


def test_huge_contents_and_what_is_no_archive_are_refused(archive, tmp_path, monkeypatch, hpcai500):
    monkeypatch.setattr(package, "MOST_CONTENTS_BYTES", 10)
    with pytest.raises(InputError, match="bytes"):
        verify(archive)
    (tmp_path / "no.zip").write_text(json.dumps({}))
    code, _, err = hpcai500("verify", tmp_path / "no.zip")
    assert (code, err.count("\n")) == (2, 1)
