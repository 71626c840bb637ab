"""Archives as paths of the commands: read where they are whole, refused where a byte changed, marked on demand."""

import json
import os
import shutil
import signal
import stat
import tempfile
import zipfile

import pytest
from honest import edit_json, honest_run, reseal

from hpcai500.score.archives import opened
from hpcai500.score.package import pack
from hpcai500.spec.workload import shipped_workloads

FORMATS = ("table", "md", "csv", "json", "html")


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    """A folder of its own for what is unpacked, which every command leaves empty."""
    (tmp_path / "unpacked_here").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "unpacked_here"))
    yield tmp_path / "unpacked_here"
    assert not list((tmp_path / "unpacked_here").iterdir())


@pytest.fixture
def pack_set(make_spec, tmp_path):
    """An archive of a system's five runs."""

    def make(system):
        folders = [honest_run(make_spec(seed=seed, system=system)) for seed in range(5)]
        pack(folders, tmp_path / f"{system}.zip")
        shutil.rmtree(tmp_path / "results")
        return tmp_path / f"{system}.zip"

    return make


def change_byte(archive, name="events.log"):
    """One digit of the first file of that name, the archive itself whole."""
    whole = archive.with_suffix(".whole")
    archive.rename(whole)
    victim = None
    with zipfile.ZipFile(whole) as old, zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as new:
        for info in old.infolist():
            content = old.read(info)
            if victim is None and info.filename.endswith(name):
                victim = info.filename
                content = content.replace(b"1", b"2", 1)
            new.writestr(info, content)
    return victim


def test_a_whole_archive_is_ranked_checked_shown_and_compared_like_its_folder(pack_set, tmp_path, hpcai500):
    archive = pack_set("whole")
    code, out, _ = hpcai500("rank", "--json", archive)
    (entry,) = json.loads(out)["lists"][0]["entries"]
    assert (code, len(entry["seeds"]), entry["num_breaches"], entry["unverified"]) == (0, 5, 0, False)
    assert entry["runs"][0]["path"].startswith(f"{archive}/runs/whole/")
    assert hpcai500("check", archive)[0] == 0
    assert hpcai500("repeatability", archive)[0] == 0
    assert hpcai500("show", archive)[1].count("Image Classification") == 5
    code, _, err = hpcai500("compare", archive, archive)
    assert (code, "5 runs; name one of them" in err, str(archive) in err) == (2, True, True)
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(tmp_path / "out")
    one = next((tmp_path / "out").rglob("run.json")).parent
    pack([one], tmp_path / "one.zip")
    code, out, _ = hpcai500("compare", tmp_path / "one.zip", one)
    assert (code, "comparable at hardware level" in out) == (0, True)


@pytest.mark.parametrize("style", FORMATS)
def test_an_altered_archive_is_refused_by_name_and_the_others_are_ranked(pack_set, hpcai500, style):
    good, bad = pack_set("good"), pack_set("bad")
    victim = change_byte(bad)
    code, out, _ = hpcai500("rank", good, bad, "--format", style)
    out = out.replace("\\_", "_").replace("&#39;", "'").replace("&#34;", '"')
    assert code == 0
    assert victim in out
    assert "refused" in out
    assert str(bad) in out
    if style == "json":
        assert [entry["system"] for entry in json.loads(out)["lists"][0]["entries"]] == ["good"]
    code, out, _ = hpcai500("repeatability", good, bad)
    assert (code, victim in out) == (0, True)
    for command in ("check", "show"):
        code, out, err = hpcai500(command, bad)
        assert (code, out, err.count("\n"), victim in err) == (1, "", 1, True)


@pytest.mark.parametrize("style", FORMATS)
def test_unverified_archives_are_ranked_on_demand_and_marked_in_every_format(pack_set, hpcai500, style):
    good, bad = pack_set("good"), pack_set("bad")
    change_byte(bad)
    code, out, _ = hpcai500("rank", good, bad, "--unverified", "--format", style)
    assert code == 0
    if style == "json":
        marks = {entry["system"]: entry["unverified"] for entry in json.loads(out)["lists"][0]["entries"]}
        assert marks == {"good": False, "bad": True}
    else:
        assert out.count("UNVERIFIED") == 1
    code, out, _ = hpcai500("repeatability", good, bad, "--unverified")
    assert (code, out.count("UNVERIFIED")) == (0, 1)
    code, out, _ = hpcai500("check", bad, "--unverified")
    assert (code, "note: UNVERIFIED: the archive was altered" in out, "1.2  " in out) == (1, True, True)


def hostile(tmp_path, name, content=b"x", mode=stat.S_IFREG):
    info = zipfile.ZipInfo(name)
    info.external_attr = (mode | 0o644) << 16
    with zipfile.ZipFile(tmp_path / "hostile.zip", "w", zipfile.ZIP_DEFLATED) as target:
        target.writestr(info, content)
    return tmp_path / "hostile.zip"


@pytest.mark.parametrize(
    ("name", "content", "mode"),
    [
        ("../outside.txt", b"x", stat.S_IFREG),
        ("runs/<script>alert(1)</script>/run.json", b"{}", stat.S_IFREG),
        ("runs/link", b"/etc/passwd", stat.S_IFLNK),
        ("runs/bomb", bytes(40 * 2**20), stat.S_IFREG),
        ("package.json", b"[" * 100_000, stat.S_IFREG),
        ("package.json", b'{"schema_version": 1, "files": {}}', stat.S_IFREG),
        ("x", b"x", stat.S_IFREG),
    ],
)
@pytest.mark.parametrize("style", FORMATS)
@pytest.mark.parametrize("unverified", [(), ("--unverified",)])
def test_hostile_archives_are_left_out_and_shown_harmless(tmp_path, hpcai500, name, content, mode, style, unverified):
    archive = hostile(tmp_path, name, content, mode)
    code, out, err = hpcai500("rank", archive, "--format", style, *unverified)
    assert (code, err) == (0, "")
    assert "hostile.zip" in out
    assert "<script>alert" not in out
    assert not (tmp_path / "outside.txt").exists()
    code, _, err = hpcai500("check", archive, *unverified)
    assert code in (1, 2)
    assert err.count("\n") == 1


def test_what_is_no_archive_is_left_out_too(tmp_path, hpcai500):
    (tmp_path / "no.zip").write_text("no")
    code, out, _ = hpcai500("rank", tmp_path / "no.zip")
    assert (code, "no.zip: refused" in out) == (0, True)
    assert hpcai500("rank", tmp_path / "absent.zip")[0] == 2


def test_a_changed_copy_of_a_workload_stands_in_the_list_of_its_benchmark(make_spec, tmp_path, hpcai500):
    source = next(folder for folder in shipped_workloads() if folder.name == "image_classification")
    shutil.copytree(source, tmp_path / "mine")
    (tmp_path / "mine" / "model.py").write_text("# another model\n")
    toml = tmp_path / "mine" / "workload.toml"
    toml.write_text(toml.read_text().replace('title = "Image Classification"', 'title = "Mine"', 1))
    honest_run(make_spec())
    honest_run(make_spec(workload=tmp_path / "mine", system="other"))
    (ranked,) = json.loads(hpcai500("rank", "--json", tmp_path / "results")[1])["lists"]
    assert (ranked["workload"], ranked["title"]) == ("image_classification", "Image Classification")
    settings = {entry["system"]: entry["overrides"] for entry in ranked["entries"]}
    assert settings == {"testbox": [], "other": ["workload=mine"]}


def test_another_benchmark_has_a_list_of_its_own(make_spec, tmp_path, hpcai500):
    honest_run(make_spec())
    other = honest_run(make_spec(system="other"))
    edit_json(other / "run.json", lambda run: run["workload"].update(benchmark="bert", name="mine", title="Mine"))
    reseal(other)
    lists = json.loads(hpcai500("rank", "--json", tmp_path / "results")[1])["lists"]
    assert sorted(found["workload"] for found in lists) == ["image_classification", "mine"]


def test_a_path_may_lead_to_a_run_in_an_archive(pack_set, tmp_path, hpcai500):
    archive = pack_set("whole")
    _, _, err = hpcai500("compare", archive, archive)
    one = err.strip().split("e.g. ")[1]
    assert one.startswith(f"{archive}/runs/")
    code, out, _ = hpcai500("compare", one, one.replace("seed0", "seed1"))
    assert (code, f"A  {one}" in out) == (0, True)
    code, out, _ = hpcai500("check", one)
    assert (code, "note: one run" in out) == (0, True)
    assert hpcai500("show", one)[1].count("Image Classification") == 1
    for inner in ("runs/nothing", "../whole.zip", "runs/../../../x"):
        code, _, err = hpcai500("check", archive / inner)
        assert (code, err.count("\n")) == (2, 1)
    code, out, _ = hpcai500("rank", archive / "runs" / "nothing")
    assert (code, "no runs/nothing in it" in out) == (0, True)


def test_an_archive_is_a_set_even_of_one_run(make_spec, tmp_path, hpcai500):
    folder = honest_run(make_spec())
    pack([folder], tmp_path / "one.zip")
    code, out, _ = hpcai500("check", tmp_path / "one.zip")
    assert (code, "5.2  " in out) == (1, True)


def test_the_reference_may_be_a_run_s_file_or_an_archive_of_one_run(make_spec, pack_set, tmp_path, hpcai500):
    several = pack_set("several")
    folder = honest_run(make_spec())
    pack([folder], tmp_path / "one.zip")
    for reference in (folder, folder / "system.json", tmp_path / "one.zip"):
        assert hpcai500("check", folder, "--reference", reference)[0] == 0
    for reference, words in ((several, "5 runs; name one of them"), (tmp_path / "data.csv", "no such file")):
        code, _, err = hpcai500("check", folder, "--reference", reference)
        assert (code, err.count("\n"), words in err) == (2, 1, True)
    change_byte(tmp_path / "one.zip")
    assert hpcai500("check", folder, "--reference", tmp_path / "one.zip", "--unverified")[0] == 1


def test_sigterm_leaves_nothing_of_an_open_archive(pack_set, temporary):
    archive = pack_set("whole")

    def killed():
        with opened([str(archive)]) as found:
            assert found.paths[0].is_relative_to(temporary)
            assert found.paths[0].is_dir()
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit) as ended:
        killed()
    assert ended.value.code == 128 + signal.SIGTERM
    assert not list(temporary.iterdir())
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
