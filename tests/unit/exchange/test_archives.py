"""Archives as paths of the commands: read where they are whole, refused where a byte changed, marked on demand."""

import csv
import hashlib
import html
import io
import itertools
import json
import os
import re
import shutil
import signal
import stat
import tempfile
import zipfile
from pathlib import Path

import pytest
from honest import edit_json, honest_run, reseal

from hpcai500.exchange.archives import opened
from hpcai500.exchange.package import pack
from hpcai500.spec.workload import shipped_workloads
from hpcai500.text import printable

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
    assert (code, "5 runs; give one of them" in err, str(archive) in err) == (2, True, True)
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
    for reference, words in ((several, "5 runs; give one of them"), (tmp_path / "data.csv", "no such file")):
        code, _, err = hpcai500("check", folder, "--reference", reference)
        assert (code, err.count("\n"), words in err) == (2, 1, True)
    change_byte(tmp_path / "one.zip")
    assert hpcai500("check", folder, "--reference", tmp_path / "one.zip", "--unverified")[0] == 1


def test_sigterm_leaves_nothing_of_an_open_archive(pack_set, temporary):
    archive = pack_set("whole")

    def killed():
        with opened([str(archive)]) as found:
            assert found.sources[0].on_disk.is_relative_to(temporary)
            assert found.sources[0].on_disk.is_dir()
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit) as ended:
        killed()
    assert ended.value.code == 128 + signal.SIGTERM
    assert not list(temporary.iterdir())
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def many_archives(make_spec, tmp_path, names, *, shared=False):
    """One archive a name, each of two runs of a system of its own, or all of the same system and seeds."""
    archives = []
    for number, name in enumerate(names):
        system = "shared" if shared else f"system{number}"
        folders = [honest_run(make_spec(seed=seed, system=system)) for seed in range(2)]
        pack(folders, tmp_path / name)
        shutil.rmtree(tmp_path / "results")
        archives.append(tmp_path / name)
    return archives


def plain(text, style):
    """What a reader of `style` sees."""
    if style == "html":
        return html.unescape(text)
    return re.sub(r"\\([\\`*_\[\]<>|&~])", r"\1", text) if style == "md" else text


def test_each_of_twelve_archives_is_called_by_its_own_name(make_spec, tmp_path, temporary, hpcai500):
    """Each seed counts once, by the first archive; the others are left out, each by its name, in every format."""
    archives = many_archives(make_spec, tmp_path, [f"set{number}.zip" for number in range(12)], shared=True)
    (first, *others) = sorted(archives)
    for style in FORMATS:
        code, out, _ = hpcai500("rank", *archives, "--format", style)
        assert (code, str(temporary) in out) == (0, False)
        text = plain(out, style)
        for archive, seed in itertools.product(others, range(2)):
            pattern = rf"(?s){archive}/runs/shared/\S*-seed{seed}/result.json.*?counts once: (\S+) does"
            (counting, *_) = re.findall(pattern, text)
            assert counting.startswith(f"{first}/runs/shared/")
            assert counting.endswith(f"-seed{seed}/result.json")


def test_a_ranking_names_every_run_by_its_own_archive(make_spec, tmp_path, hpcai500):
    archives = many_archives(make_spec, tmp_path, [f"set{number}.zip" for number in range(11)])
    entries = json.loads(hpcai500("rank", "--json", *archives)[1])["lists"][0]["entries"]
    assert len(entries) == 11
    for entry in entries:
        archive = archives[int(entry["system"].removeprefix("system"))]
        assert all(run["path"].startswith(f"{archive}/runs/{entry['system']}/") for run in entry["runs"])
    reports = json.loads(hpcai500("check", "--json", *archives)[1])
    named = {report["runs"][0].partition(".zip/")[0] for report in reports}
    assert named == {str(archive.with_suffix("")) for archive in archives}
    assert {breach["run"] for breach in reports[10]["breaches"]} == {str(Path(reports[10]["runs"][0]).parent)}


@pytest.mark.parametrize("altered", [1, 10])
def test_one_altered_archive_marks_its_own_entries_and_no_others(make_spec, tmp_path, hpcai500, altered):
    names = [f"set{number}.zip" for number in range(9)] + ["set1.zip.zip", "set1"[:4] + "10.zip"]
    archives = many_archives(make_spec, tmp_path, names)
    change_byte(archives[altered])
    entries = json.loads(hpcai500("rank", "--json", "--unverified", *archives)[1])["lists"][0]["entries"]
    assert {entry["system"] for entry in entries if entry["unverified"]} == {f"system{altered}"}
    out = hpcai500("repeatability", "--json", "--unverified", *archives)[1]
    assert {report["entry"]["system"] for report in json.loads(out)["entries"] if report["entry"]["unverified"]} == {
        f"system{altered}"
    }
    reports = json.loads(hpcai500("check", "--json", "--unverified", *archives)[1])
    marked = [report["entry"] for report in reports if any("UNVERIFIED" in note for note in report["notes"])]
    assert [f", system{altered}," in entry for entry in marked] == [True]


HOSTILE_NAMES = (
    "<script>alert(1)<.zip", "a|b|.zip", "=HYPERLINK(1).zip", "red\x1b[31m.zip", "two\nlines.zip", "`*_[x](y).zip",
    "\u202egnp.zip", "set \"'.zip",
)  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_an_archives_own_name_is_shown_harmless_in_every_format(make_spec, tmp_path, monkeypatch, hpcai500, name):
    monkeypatch.chdir(tmp_path)  # so that what is shown begins with the name
    many_archives(make_spec, tmp_path, [name, "z.zip"], shared=True)
    (tmp_path / f"bad{name}").write_text("no archive")
    shown = printable(name)
    given = (name, name, "z.zip", f"bad{name}")
    expected = {shown, f"bad{shown}"} | ({"z.zip"} if name < "z.zip" else set())  # the first archive counts
    found = {style: hpcai500("rank", *given, "--format", style) for style in FORMATS}
    for style, (code, out, err) in found.items():
        assert (code, err) == (0, "")
        if style != "html":  # whose style sheet and script are the package's own
            assert all(line.isprintable() for line in out.split("\n"))
    page = found["html"][1]
    assert "<script>alert" not in page
    listed = [html.unescape(text) for text in re.findall(r"<li><code>([^<]*)</code>", page)]
    assert {path.partition("/runs/")[0] for path in listed} == expected
    rows = [row for row in csv.DictReader(io.StringIO(found["csv"][1])) if row["list"] == "not ranked"]
    cells = {row["system"].partition("/runs/")[0] for row in rows}
    assert cells == {f"'{path}" if path.startswith("=") else path for path in expected}
    items = json.loads(found["json"][1])["not_ranked"]
    assert {item["path"].partition("/runs/")[0] for item in items} == expected
    lines = [line for line in found["md"][1].split("\n") if line.startswith("- ")]
    assert len(lines) == len(items)
    assert not re.search(r"(?<!\\)[`*_\[\]<>|&~]", "".join(lines).replace("\\\\", ""))
    assert any(plain(line, "md").startswith(f"- {shown}/runs/") for line in lines)
    assert f"  {shown}/runs/" in found["table"][1]
    code, _, err = hpcai500("show", f"bad{name}")
    assert (code, err.count("\n"), err[:-1].isprintable()) == (2, 1, True)


DAMAGES = {
    "run.json": ("{", '{"schema_version": 99}'),
    "events.log": (":::MLLOG {\n:::MLLOG {}\n", None),
    "system.json": ("{", "{}"),
    "result.json": ("{", '{"schema_version": 1, "status": 3}'),
    "manifest.json": ("{",),
}


@pytest.mark.parametrize(("file", "content"), [(file, text) for file, texts in DAMAGES.items() for text in texts])
def test_no_message_names_the_folder_that_an_archive_lies_in(make_spec, tmp_path, temporary, hpcai500, file, content):
    """What a record says wrong is told by the archive's name, by each command, in one line or a document."""
    folder = honest_run(make_spec())
    sound = honest_run(make_spec(seed=1))
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_text(content)
    with zipfile.ZipFile(tmp_path / "broken.zip", "w", zipfile.ZIP_DEFLATED) as target:
        files = {}
        for run in (folder, sound):
            for path in sorted(path for path in run.rglob("*") if path.is_file()):
                name = f"runs/testbox/image_classification/mini-free/{run.name}/{path.name}"
                target.writestr(name, path.read_bytes())
                files[name] = {
                    "sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "num_bytes": path.stat().st_size
                }  # fmt: skip
        target.writestr("package.json", json.dumps({"schema_version": 1, "files": files}))
    archive = tmp_path / "broken.zip"
    one = f"{archive}/runs/testbox/image_classification/mini-free/{folder.name}"
    commands = [
        *(("rank", "--format", style, archive) for style in ("json", "html")),
        ("check", archive), ("check", "--json", one), ("show", archive),
        ("show", one), ("compare", one, one.replace("seed0", "seed1")), ("repeatability", archive),
    ]  # fmt: skip
    for command in commands:
        code, out, err = hpcai500(*command)
        assert code in (0, 1, 2), (command, err)
        assert str(temporary) not in out + err, command
