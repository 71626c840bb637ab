"""A ranking read again from the JSON that `rank --json` wrote, or that somebody else wrote."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from fleet import write_fleet
from honest import honest_run

from hpcai500.cli.main import main
from hpcai500.files import data_dir
from hpcai500.spec.levels import Level
from hpcai500.spec.run import resolve

PUBLISHED = data_dir("workloads") / "image_classification" / "published" / "2020-07.csv"
ORIGIN = "Made from a ranking file of SHA-256 {}; the runs' evidence was not read."
RUN_FILES = ("run.json", "result.json", "events.log", "system.json")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Two systems at two sizes with five seeds each, and one run that is broken; no test changes them."""
    folder = tmp_path_factory.mktemp("ranked") / "results"
    for system, procs in (("alpha", 1), ("alpha", 2), ("beta", 4)):
        for seed in range(5):
            spec = resolve(
                "image_classification", problem="mini", level=Level.FREE, seed=seed, system=system, overrides={},
                procs_per_node=procs, data=str(folder.parent / "data"), output=str(folder),
            )  # fmt: skip
            honest_run(spec, [(110 + 60 * epoch + seed) / 360 for epoch in range(1, 5)])
    (folder / "broken").mkdir()
    (folder / "broken" / "result.json").write_text("{")
    return folder


@pytest.fixture(scope="module")
def written(results):
    """The file that `rank --json` writes of them and of a published list."""
    file = results.parent / "r.json"
    assert main(["rank", str(results), str(PUBLISHED), "--json", "--output", str(file)]) == 0
    return file


@pytest.fixture
def ranking(written, tmp_path):
    """A copy of it, to change."""
    return Path(shutil.copy(written, tmp_path))


@pytest.mark.parametrize("style", ["html", "table", "md", "csv", "json"])
def test_a_format_from_the_file_is_that_from_the_results_but_for_the_line_that_says_so(
    hpcai500, results, ranking, style
):
    code, direct, _ = hpcai500("rank", results, PUBLISHED, "--format", style)
    assert code == 0
    code, again, _ = hpcai500("rank", ranking, "--format", style)
    assert code == 0
    digest = hashlib.sha256(ranking.read_bytes()).hexdigest()
    line = ORIGIN.format(digest)
    escaped = line.replace("'", "&#39;")
    expected = {
        "html": f'  <p class="quiet origin">{escaped}</p>\n',
        "table": f"\n\n{line}",
        "md": f"\n\n{line}",
        "csv": "",
        "json": f'\n  "ranking_file_sha256": "{digest}",',
    }[style]
    direct = direct.replace('\n  "ranking_file_sha256": null,', "")
    assert again.count(expected) == 1 or not expected
    assert again.replace(expected, "") == direct


def test_an_exponents_range_and_a_metric_are_kept_by_the_file(hpcai500, results, tmp_path):
    options = ("--by", "time_to_quality", "--exponent", "1..3")
    _, direct, _ = hpcai500("rank", results, *options, "--format", "md")
    hpcai500("rank", results, *options, "--output", tmp_path / "r.json")
    _, again, _ = hpcai500("rank", tmp_path / "r.json", "--format", "md")
    assert again.startswith(direct.rstrip("\n"))


ODD = "a\N{NO-BREAK SPACE}b\tc\nd \N{WOMAN}\N{ZERO WIDTH JOINER}\N{ROCKET}"


def test_a_ranking_of_results_with_odd_texts_is_read_again(hpcai500, results, tmp_path):
    shutil.copytree(results, tmp_path / "results")
    for system in (tmp_path / "results").rglob("system.json"):
        record = json.loads(system.read_text())
        record["nodes"][0]["layers"]["2"][ODD] = {"odd": ODD, "long": "x" * 20_000}
        system.write_text(json.dumps(record))
    workload = tmp_path / "workload"
    (workload / "published").mkdir(parents=True)
    shutil.copy(PUBLISHED.parents[1] / "workload.toml", workload)
    published = workload / "published" / PUBLISHED.name
    lines = PUBLISHED.read_text().splitlines()
    cells = [line.split(",") for line in lines[1:3]]
    column = lines[0].split(",").index("source")
    cells[0][column], cells[1][column] = f'"{ODD}"', "y" * 20_000
    published.write_text("\n".join([lines[0], *map(",".join, cells), *lines[3:]]) + "\n")
    code, direct, _ = hpcai500("rank", tmp_path / "results", published, "--format", "html")
    assert code == 0
    assert hpcai500("rank", tmp_path / "results", published, "--output", tmp_path / "r.json")[0] == 0
    code, again, err = hpcai500("rank", tmp_path / "r.json", "--format", "html")
    assert (code, err) == (0, "")
    assert [line for line in again.splitlines() if "quiet origin" not in line] == direct.splitlines()
    assert "a b c d \N{WOMAN}\N{REPLACEMENT CHARACTER}\N{ROCKET}" in direct


def test_a_ranking_of_a_ranking_file_keeps_the_digest_of_the_first(hpcai500, ranking, tmp_path):
    digest = hashlib.sha256(ranking.read_bytes()).hexdigest()
    assert hpcai500("rank", ranking, "--output", tmp_path / "second.json")[0] == 0
    _, third, _ = hpcai500("rank", tmp_path / "second.json", "--json")
    assert json.loads(third)["ranking_file_sha256"] == digest
    assert third == (tmp_path / "second.json").read_text()


@pytest.mark.parametrize("name", ["result.json", "run.json", "r.csv", "r.zip", "ranking", "r.html"])
def test_a_ranking_file_is_known_by_its_content(hpcai500, ranking, tmp_path, name):
    _, expected, _ = hpcai500("rank", ranking)
    named = tmp_path / name
    named.write_bytes(ranking.read_bytes())
    assert hpcai500("rank", named) == (0, expected, "")


@pytest.mark.parametrize("style", ["table", "md"])
def test_an_empty_ranking_file_says_that_there_is_nothing_to_rank(hpcai500, tmp_path, style):
    (tmp_path / "none").mkdir()
    assert hpcai500("rank", tmp_path / "none", "--output", tmp_path / "r.json")[0] == 0
    code, out, _ = hpcai500("rank", tmp_path / "r.json", "--format", style)
    assert (code, out.split("\n\n")[0]) == (0, "Nothing to rank.")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--json", "--output", "x.html"), "--json and --output x.html, which ends as html"),
        (("--format", "md", "--output", "x.csv"), "--format md and --output x.csv, which ends as csv"),
        (("--json", "--format", "md"), "--json and --format md"),
    ],
)
def test_two_formats_at_once_are_refused(hpcai500, ranking, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = hpcai500("rank", ranking, *options)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert not list(tmp_path.glob("x.*"))


def test_a_format_may_be_written_to_a_file_with_an_ending_of_none(hpcai500, ranking, tmp_path):
    assert hpcai500("rank", ranking, "--format", "md", "--output", tmp_path / "ranking.text")[0] == 0
    assert (tmp_path / "ranking.text").read_text().startswith("##")


def test_the_help_of_rank_names_every_kind_of_path(capsys):
    with pytest.raises(SystemExit):
        main(["rank", "--help"])
    words = " ".join(capsys.readouterr().out.split())
    assert "a published list (CSV), or, on its own, a ranking file that `rank --json` wrote" in words


COUNTED = []
"""Where an open of a run's file is counted: one hook serves all tests, since Python takes none back."""


def count_open(event, arguments):
    if event == "open" and COUNTED and isinstance(arguments[0], str | os.PathLike):
        path = Path(arguments[0])
        if path.name in RUN_FILES:
            COUNTED[-1][path] += 1


@pytest.fixture(scope="module")
def open_hook():
    sys.addaudithook(count_open)


@pytest.fixture
def opens(open_hook):
    """The files of runs opened from here on, each with how often."""
    COUNTED.append(Counter())
    yield COUNTED[-1]
    COUNTED.clear()


@pytest.mark.parametrize("style", ["table", "html"])
def test_each_file_of_a_run_is_opened_once(hpcai500, results, opens, style):
    assert hpcai500("rank", results, "--format", style)[0] == 0
    assert set(opens.values()) == {1}
    assert Counter(path.name for path in opens) == {name: 15 + (name == "result.json") for name in RUN_FILES}


def test_of_more_runs_than_are_checked_no_file_is_opened_twice(hpcai500, results, tmp_path, request):
    base = next(results.rglob("*-seed0"))
    write_fleet(tmp_path / "fleet", base, [("gamma", ranks, ranks) for ranks in range(1, 42)], seeds=5)
    opens = request.getfixturevalue("opens")
    assert hpcai500("rank", tmp_path / "fleet", "--format", "json")[0] == 0
    assert set(opens.values()) == {1}
    assert Counter(path.name for path in opens) == {"result.json": 205, "run.json": 41, "system.json": 41}


def changed(file, change):
    record = json.loads(file.read_text())
    change(record)
    file.write_text(json.dumps(record))


def put(*keys, value):
    def change(record):
        place = record
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value

    return change


ENTRY = ("lists", 0, "entries", 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("schema_version", value=2), "schema version 2, newer than this hpcai500 reads; update it"),
        (put("schema_version", value="1"), "a schema version is a whole number"),
        (put("surprise", value=1), "unknown key 'surprise'"),
        (put("lists", value=None), "lists: input should be a valid"),
        (put(*ENTRY, "world_size", value=0), "nodes and world_size must lie between 1 and"),
        (put(*ENTRY, "world_size", value=-4), "lists.0.entries.0.world_size: -4 is negative"),
        (put(*ENTRY, "world_size", value="4"), "world_size: input should be a valid integer"),
        (put(*ENTRY, "world_size", value=10**200), "lists.0.entries.0.world_size: out of range"),
        (put(*ENTRY, "flops", "mean", value=1e300), "lists.0.entries.0.flops.mean: out of range"),
        (put(*ENTRY, "flops", "mean", value=-1.0), "lists.0.entries.0.flops.mean: -1 is negative"),
        (put(*ENTRY, "system", value="a\nb"), "lists.0.entries.0.system: longer than"),
        (put(*ENTRY, "system", value="a\x1b[31m"), "not printable"),
        (put(*ENTRY, "system", value="\ud800"), "not printable"),
        (put(*ENTRY, "system", value="x" * 20_000), "longer than 10,000 characters"),
        (put(*ENTRY, "runs", value=[]), "runs must not be empty"),
        (put(*ENTRY, "seeds", value=[1]), "seeds must be theirs"),
        (put(*ENTRY, "rank", value=None), "must be given together"),
        (put(*ENTRY, "layers", value=[[]]), "layers must be none, or 9"),
        (put(*ENTRY, "runs", 0, "curve", "quality", value=[]), "the columns of a curve must be equally long"),
        (put(*ENTRY, "runs", 0, "flops", value=0.0), "flops must lie between 0 and 1e+40"),
        (put(*ENTRY, "runs", 0, "achieved_quality", value=1.5), "achieved_quality between 0 and 1"),
        (put("lists", 0, "target_quality", value=1e-30), "target_quality is so low that VFLOPS overflow"),
        (put("lists", 0, "target_quality", value=0.0), "target_quality must lie between 0 and 1"),
        (put("lists", 0, "penalty_exponent", value=5000), "penalty_exponent from 1 to 100"),
        (put("lists", 0, "by", value="beauty"), "lists.0.by: "),
        (put("lists", 0, "sensitivity", value={"exponents": [1], "ranks": []}), "one row per entry"),
        (put("lists", 0, "sensitivity", value={"exponents": [], "ranks": [[], [], []]}), "sensitivity.exponents"),
        (put("lists", 0, "scaling", 0, "points", value=[]), "scaling.0: points must not be empty"),
        (put("published", 0, "entries", 0, "published_vflops", value=0.0), "must be above 0"),
        (put("not_ranked", 0, "path", value=3), "a path must be a text"),
        (put("ranking_file_sha256", value="abc"), "ranking_file_sha256: not a SHA-256 in hex"),
    ],
)
def test_a_file_that_no_ranking_writes_is_refused_in_one_line(hpcai500, ranking, tmp_path, change, message):
    changed(ranking, change)
    code, out, err = hpcai500("rank", ranking, "--output", tmp_path / "page.html")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert str(ranking) in err
    assert not (tmp_path / "page.html").exists()


def scale(*keys, by):
    def change(record):
        place = record
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] *= by

    return change


def both(*changes):
    def change(record):
        for one in changes:
            one(record)

    return change


def swap_entries(record):
    entries = record["lists"][0]["entries"]
    entries[0], entries[1] = entries[1], entries[0]


def repeat_list(record):
    record["lists"].append(record["lists"][0])


POINT = ("lists", 0, "scaling", 0, "points", 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (scale(*ENTRY, "vflops", "mean", by=1.5), "lists.0: entries.0: vflops.mean: "),
        (scale(*ENTRY, "vflops", "mean", by=1 + 1e-7), "vflops.mean: "),
        (scale(*ENTRY, "vflops", "median", by=1.01), "vflops.median: "),
        (scale(*ENTRY, "vflops", "interval_low", by=1.5), "vflops.interval_low: "),
        (scale(*ENTRY, "vflops", "interval_high", by=0.5), "vflops.interval_high: "),
        (scale(*ENTRY, "vflops", "standard_deviation", by=2), "vflops.standard_deviation: "),
        (scale(*ENTRY, "vflops", "coefficient_of_variation", by=2), "vflops.coefficient_of_variation: "),
        (put(*ENTRY, "vflops", "bootstrap_low", value=1.0), "vflops.bootstrap_low: 1 does not follow"),
        (
            put(*ENTRY, "vflops", "num_runs", value=6),
            "vflops.num_runs: 6 does not follow from the runs, which give 5",
        ),
        (put(*ENTRY, "vflops", "mean", value=None), "vflops.mean: null does not follow"),
        (scale(*ENTRY, "flops", "mean", by=1.5), "flops.mean: "),
        (scale(*ENTRY, "quality", "mean", by=0.9), "quality.mean: "),
        (scale(*ENTRY, "time_sec", "mean", by=0.9), "time_sec.mean: "),
        (scale(*ENTRY, "vflops_per_accelerator", by=2), "vflops_per_accelerator: "),
        (put(*ENTRY, "mlperf_time_sec", value=1.0), "mlperf_time_sec: 1 does not follow"),
        (put(*ENTRY, "time_to_quality_sec", "num_censored", value=9), "time_to_quality_sec.num_censored: 9 "),
        (put(*ENTRY, "num_diverged", value=10**15), "lists.0: num_diverged: more runs than not_ranked has"),
        (put(*ENTRY, "num_diverged", value=1), "entries.0: time_to_quality_sec.num_censored: 0 does not follow"),
        (scale(*ENTRY, "runs", 0, "vflops", by=1.001), "entries.0: runs.0: vflops: "),
        (scale(*ENTRY, "runs", 0, "flops", by=1.001), "entries.0: runs.0: vflops: "),
        (scale(*ENTRY, "runs", 0, "total_sec", by=1.5), "entries.0: time_sec.mean: "),
        (scale(*ENTRY, "runs", 0, "achieved_quality", by=0.9), "entries.0: runs.0: vflops: "),
        (put(*ENTRY, "runs", 0, "vflops_per_watt", value=1.0), "vflops_per_watt: given without energy_joules"),
        (
            both(
                put(*ENTRY, "runs", 0, "vflops_per_watt", value=1.0),
                put(*ENTRY, "runs", 0, "energy_joules", value=1.0),
            ),
            "vflops_per_watt: 1 is not vflops over power",
        ),
        (put(*ENTRY, "runs", 0, "epochs_to_quality", value=None), "must be given together"),
        (put(*ENTRY, "runs", 0, "time_to_quality_sec", value=1e9), "time_to_quality_sec: more than total_sec"),
        (put(*ENTRY, "runs", 0, "curve", "quality", -1, value=0.1), "curve.quality: does not end at"),
        (
            both(put(*ENTRY, "seeds", 1, value=0), put(*ENTRY, "runs", 1, "seed", value=0)),
            "entries.0: seeds: one appears twice",
        ),
        (put(*ENTRY, "rank", value=2), "entries.0: rank: 2 does not follow from the runs, which give 1"),
        (put(*ENTRY, "rank_low", value=3), "entries.0: rank_low: 3 does not follow"),
        (put(*ENTRY, "rank_high", value=9), "entries.0: rank_high: 9 does not follow"),
        (swap_entries, "lists.0: entries.0: not in the order by vflops"),
        (put("lists", 0, "by", value="vflops_per_watt"), "lists.0: entries.0: rank: 1 does not follow"),
        (put("lists", 0, "penalty_exponent", value=6), "lists.0: entries.0: runs.0: vflops: "),
        (put("lists", 0, "level", value="heavy"), "lists.0: level: 'heavy' is none of hardware, system, free"),
        (repeat_list, "lists: one list twice"),
        (
            put("lists", 0, "sensitivity", value={"exponents": [1], "ranks": [[3], [3], [3]]}),
            "lists.0: sensitivity.ranks: not those of the runs' VFLOPS",
        ),
        (scale(*POINT, "flops", by=2), "lists.0: scaling.0: points.1: flops: "),
        (scale(*POINT, "speed_up", by=2), "lists.0: scaling.0: points.1: speed_up: "),
        (scale(*POINT, "efficiency", by=2), "lists.0: scaling.0: points.1: efficiency: "),
        (put("published", 0, "level", value="heavy"), "published.0: level: "),
        (scale("published", 0, "entries", 1, "vflops", by=1.1), "published.0: entries.1: vflops: "),
        (scale("published", 0, "entries", 1, "time_sec", by=1.1), "published.0: entries.1: flops: "),
        (put("published", 0, "entries", 0, "rank", value=2), "published.0: entries.0: rank: "),
    ],
)
def test_a_file_that_contradicts_itself_is_refused_in_one_line(hpcai500, ranking, change, message):
    changed(ranking, change)
    code, out, err = hpcai500("rank", ranking)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"\xff\xfe{", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"[1]", "neither a ranking nor a result"),
        (b"null", "neither a ranking nor a result"),
        (b'{"schema_version": 1}', "neither a ranking nor a result"),
        (b'{"lists": [], "lists": []}', "the key 'lists' appears twice"),
        (b'{"lists": [NaN]}', "NaN is not a number of JSON"),
        (b'{"lists": [-Infinity]}', "-Infinity is not a number of JSON"),
        (b'{"lists": [1e999]}', "lists.0: out of range"),
        (b'{"lists": [' + b"9" * 5_000 + b"]}", "not valid JSON"),
        (b'{"lists": [], "published": []}', "key 'not_ranked' is missing"),
        (b'{"lists\\u001b[31m": 1, "lists": [], "published\\n": "\\u0000"}', "not printable"),
    ],
)
def test_what_is_no_ranking_is_refused_in_one_line(hpcai500, tmp_path, content, message):
    (tmp_path / "r.json").write_bytes(content)
    code, out, err = hpcai500("rank", tmp_path / "r.json")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert "\x1b" not in err


def test_a_ranking_file_stands_alone(hpcai500, results, ranking, tmp_path):
    (tmp_path / "other.json").write_bytes(ranking.read_bytes())
    for paths in ((ranking, results), (results, ranking), (ranking, tmp_path / "other.json")):
        code, _, err = hpcai500("rank", *paths)
        assert (code, err.count("\n")) == (2, 1)
        assert "a ranking file among other paths" in err


@pytest.mark.parametrize(
    "options", [("--by", "flops"), ("--exponent", "5"), ("--exponent", "1..3"), ("--unverified",)]
)
def test_a_ranking_file_keeps_its_order(hpcai500, ranking, options):
    code, _, err = hpcai500("rank", ranking, *options)
    assert (code, err.count("\n")) == (2, 1)
    assert f"{options[0]} with a ranking file" in err


def test_a_result_by_another_name_is_ranked_as_before(hpcai500, results, tmp_path):
    found = next(results.rglob("*-seed0/result.json"))
    (tmp_path / "mine.json").write_bytes(found.read_bytes())
    code, out, _ = hpcai500("rank", tmp_path / "mine.json")
    assert code == 0
    assert "not ranked" not in out.lower()


def test_the_names_of_a_ranking_file_are_escaped_on_its_page(hpcai500, ranking):
    hostile = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
    for keys in ((*ENTRY, "system"), ("lists", 0, "title"), (*ENTRY, "accelerator"), ("not_ranked", 0, "reason")):
        changed(ranking, put(*keys, value=hostile))
    changed(ranking, put("hpcai500_version", value=hostile))
    changed(ranking, put(*ENTRY, "layers", 0, value=[[hostile, hostile]]))
    code, page, _ = hpcai500("rank", ranking, "--format", "html")
    assert code == 0
    assert "<script>alert" not in page
    assert "<img" not in page
    assert page.count("<script") == 2


def test_few_entries_are_ranked_without_numpy_and_scipy(results):
    code = (
        "import sys\nfrom hpcai500.cli.main import main\n"
        f"assert main(['rank', {str(results)!r}]) == 0\n"
        "slow = {'numpy', 'scipy', 'jinja2', 'tabulate', 'torch'} & set(sys.modules)\nassert not slow, slow"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
