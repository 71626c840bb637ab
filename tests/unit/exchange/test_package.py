"""Archives of results: whole ones verify, changed ones are named, hostile ones harm nothing."""

import hashlib
import json
import os
import shutil
import stat
import zipfile
from contextlib import suppress

import pytest
from honest import edit_json, edit_log, honest_run

from hpcai500.errors import InputError, OccupiedError, ShortfallError
from hpcai500.events import reader
from hpcai500.events.vocabulary import Key
from hpcai500.exchange import package
from hpcai500.exchange.package import CONTENTS, look, pack, unpack, verify
from hpcai500.score.record.run_files import MANIFEST, SEALED
from hpcai500.score.rules.check import check
from hpcai500.spec.workload import shipped_workloads


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
        (("runs/a", "runs/a/b"), "'runs/a/b': lies below a name that is also a file"),
        (("runs/a", "runs/A"), "'runs/A': occurs twice"),
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
    monkeypatch.setattr(package, "MOST_RECORD_BYTES", 100)
    assert "bytes, too large for a record of a run" in verify(archive)[0]


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


def forge(source, target, change):
    """As `rewrite`, and package.json made anew; `change` may also give (name, content)."""
    files = {}
    with zipfile.ZipFile(source) as old:
        for name in old.namelist():
            found = change(name, old.read(name))
            if name != CONTENTS and found is not None:
                files |= dict([found if isinstance(found, tuple) else (name, found)])
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        held = {
            name: {"sha256": hashlib.sha256(content).hexdigest(), "num_bytes": len(content)}
            for name, content in files.items()
        }
        for name, content in {**files, CONTENTS: json.dumps({"schema_version": 1, "files": held}).encode()}.items():
            new.writestr(name, content)
    return target


def test_source_that_no_run_ran_is_a_fault_though_every_digest_is_made_anew(archive, tmp_path):
    assert verify(forge(archive, tmp_path / "same.zip", lambda name, content: content)) == []
    easier = forge(archive, tmp_path / "a.zip", lambda name, content: content + b"#" * name.endswith("workload.toml"))
    (fault,) = verify(easier)
    assert "not the source that ran" in fault
    with pytest.raises(ShortfallError):
        unpack(easier, tmp_path / "out")
    fewer = forge(
        archive, tmp_path / "b.zip", lambda name, content: None if name.endswith("/workload.py") else content
    )
    assert "not the source that ran" in verify(fewer)[0]
    moved = forge(
        archive, tmp_path / "c.zip",
        lambda name, content: (name.replace("workloads/", "workloads/0"), content),
    )  # fmt: skip
    assert "not the source of any run in it" in verify(moved)[0]


def test_source_that_is_absent_is_noted_and_no_fault(archive, tmp_path, hpcai500):
    bare = forge(
        archive, tmp_path / "bare.zip", lambda name, content: None if name.startswith("workloads/") else content
    )
    assert look(archive) == ([], [])
    faults, (note,) = look(bare)
    assert (faults, note.startswith("source of 'image_classification' (")) == ([], True)
    code, out, _ = hpcai500("verify", bare)
    assert (code, f"note: {note}" in out) == (0, True)
    assert json.loads(hpcai500("verify", "--json", bare)[1])["notes"] == [note]


def test_package_says_which_source_changed_since_the_run(make_spec, tmp_path, hpcai500):
    source = next(folder for folder in shipped_workloads() if folder.name == "image_classification")
    shutil.copytree(source, tmp_path / "mine")
    folder = honest_run(make_spec(workload=tmp_path / "mine"))
    assert hpcai500("package", folder, "--output", tmp_path / "whole.zip")[2] == ""
    (tmp_path / "mine" / "model.py").write_text("# changed\n")
    code, _, err = hpcai500("package", folder, "--output", tmp_path / "set.zip")
    assert (code, "source of 'mine'" in err, "is not in it: it changed since the run" in err) == (0, True, True)
    assert verify(tmp_path / "set.zip") == []


@pytest.mark.parametrize(
    "name",
    [
        "runs/-rf", "runs/--help", "=cmd/x", "runs/+1+1", "runs/@x", "runs/.bashrc", "runs/CON", "runs/nul.txt",
        "com1/x", "runs/x.", ".hidden/x",
    ],
)  # fmt: skip
def test_names_that_a_shell_a_spreadsheet_or_windows_would_mistake_are_refused(archive, tmp_path, name):
    with zipfile.ZipFile(archive, "a") as source:
        source.writestr(name, "x")
    (fault,) = verify(archive)
    assert "not a name" in fault


def test_bytes_beside_the_files_of_an_archive_are_refused(archive, tmp_path):
    content = archive.read_bytes()
    for number, changed in enumerate((b"#!/bin/sh\n" + content, content + b"x")):
        other = tmp_path / f"{number}.zip"
        other.write_bytes(changed)
        assert verify(other) == ["has bytes before, between or after its files"]
        with pytest.raises(ShortfallError):
            unpack(other, tmp_path / "out", unverified=True)
    with zipfile.ZipFile(archive, "a") as source:
        source.comment = b"x"
    assert verify(archive) == ["has bytes before, between or after its files"]


def test_logs_that_no_run_writes_are_refused_before_they_are_unpacked(archive, monkeypatch):
    monkeypatch.setattr(package, "MOST_LOG_BYTES", 100)
    assert "bytes, too large for the log of a run" in verify(archive)[0]
    monkeypatch.setattr(package, "MOST_LOGS_BYTES", 100)
    assert "bytes of events" in verify(archive)[0]


def test_what_is_packed_verifies_however_well_it_shrinks(make_spec, tmp_path):
    folder = honest_run(make_spec())
    (folder / "logs" / "stderr.log").write_text("a warning\n" * 1_000_000)
    (folder / "logs" / ".nfs0001").write_text("x")
    pack([folder], tmp_path / "set.zip")
    assert verify(tmp_path / "set.zip") == []


def test_nothing_is_left_of_an_archive_that_could_not_be_written(make_spec, tmp_path, monkeypatch, hpcai500):
    folder = honest_run(make_spec())
    monkeypatch.setattr(package, "MOST_LOG_BYTES", 100)
    code, _, err = hpcai500("package", folder, "--output", tmp_path / "set.zip")
    assert (code, "too large for the log of a run" in err, (tmp_path / "set.zip").exists()) == (2, True, False)
    code, _, err = hpcai500("package", folder, "--output", tmp_path / "set.tar")
    assert (code, "name it set.zip" in err) == (2, True)


@pytest.mark.parametrize(
    ("limit", "words"),
    [("MOST_LOG_BYTES", "bytes"), ("MOST_EVENTS", "events"), ("MOST_EVENT_BYTES", "bytes of events")],
)
def test_a_log_larger_than_a_run_writes_is_one_line_everywhere(
    make_spec, tmp_path, monkeypatch, hpcai500, limit, words
):
    folder = honest_run(make_spec())
    (folder / "result.json").unlink()
    monkeypatch.setattr(reader, limit, 10)
    reason = f"events.log: more than 10 {words}: too large for the log of a run"
    code, out, _ = hpcai500("check", folder)
    assert (code, "1.1  " in out, reason in out) == (1, True, True)
    code, out, _ = hpcai500("rank", tmp_path / "results", "--format", "md")
    assert (code, reason in out.replace("\\", "")) == (0, True)
    code, _, err = hpcai500("compare", folder, folder)
    assert (code, reason in err) == (2, True)


def test_one_run_with_a_number_beyond_floats_ends_no_ranking(make_spec, tmp_path, hpcai500):
    for seed in range(2):
        honest_run(make_spec(seed=seed))
    hostile = honest_run(make_spec(system="hostile"))
    edit_log(hostile, Key.EPOCH, lambda record: record["value"].update(num_samples=10**4000))
    (tmp_path / "sets").mkdir()
    pack([tmp_path / "results"], tmp_path / "sets" / "set.zip")
    for path in (tmp_path / "results", tmp_path / "sets" / "set.zip"):
        code, out, err = hpcai500("rank", "--json", path)
        assert (code, err) == (0, "")
        assert "testbox" in {entry["system"] for entry in json.loads(out)["lists"][0]["entries"]}
        code, out, err = hpcai500("check", path)
        assert (code, err, "1.1  " in out) == (1, "", True)
    code, _, err = hpcai500("compare", hostile, hostile)
    assert (code, err.count("\n"), "not the files of a run (OverflowError" in err) == (2, 1, True)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", [*SEALED, MANIFEST, "result.json"])
def test_a_pipe_in_place_of_a_file_holds_nobody_up(make_spec, tmp_path, hpcai500, name):
    folder = honest_run(make_spec())
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    reason = f"{name}: not a regular file"
    commands = (["check", folder], ["rank", folder, "--format", "csv"], ["compare", folder, folder], ["show", folder])
    for command in (*commands, ["package", folder, "--output", tmp_path / "set.zip"]):
        code, out, err = hpcai500(*command)
        assert code in (0, 1, 2)
        assert reason in out + err
