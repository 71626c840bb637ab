"""What a ranking looks like in each format: its room, its counts, its names."""

import csv
import io
import json
import unicodedata

import pytest
from fleet import ranking_of, write_fleet

from hpcai500.report.ranking.columns import columns, quantity
from hpcai500.report.ranking.csv_table import render as ranking_csv
from hpcai500.report.ranking.markdown import render as ranking_markdown
from hpcai500.report.ranking.page import render as ranking_page
from hpcai500.report.ranking.page_data import page_data
from hpcai500.report.ranking.repeatability import repeatability_text
from hpcai500.report.ranking.terminal import render as ranking_text
from hpcai500.report.run import run_text
from hpcai500.report.width import folded, width
from hpcai500.score.ranking.collection import collect
from hpcai500.score.ranking.document import ranking_document
from hpcai500.score.ranking.ranking import rank
from hpcai500.score.ranking.repeatability import repeatability
from hpcai500.score.record.reading import newest_result


def ranked_with(results, **update):
    """The one list of `results`, each entry changed by `update`."""
    (ranked,) = rank(collect([results]).runs)
    return ranked.model_copy(update={"entries": tuple(e.model_copy(update=update) for e in ranked.entries)})


def drawn(text):
    """Columns of a terminal, by the Unicode database alone."""
    return sum(
        0 if unicodedata.combining(letter) else 2 if unicodedata.east_asian_width(letter) in "WF" else 1
        for letter in text
    )


def test_200_entries_whose_layers_all_differ_keep_curves_and_layers_below_a_megabyte(add, tmp_path):
    systems = [(f"system-{number}", 1 + number % 8, 1 + number / 7) for number in range(200)]
    write_fleet(
        tmp_path / "fleet", add([0.3, 0.7, 0.9]), systems, seeds=5, epochs=90,
        layer=lambda number: {f"setting_{which}": f"{number}-{which}-{'abcdefgh' * 4}" for which in range(3)},
    )  # fmt: skip
    page = ranking_page(ranking_of(tmp_path / "fleet"))
    assert len(page.encode()) <= 1_000_000
    data = json.loads(page.partition('<script type="application/json" id="data">')[2].partition("</script>")[0])
    assert (data["points"] >= 12, data["layered"]) == (True, True)
    for entry in data["lists"][0]["entries"]:
        hardware = dict(data["pairs"][pair] for pair in data["layers"][entry["layers"][0]])
        number = entry["name"].removeprefix("system-")
        assert hardware["setting_1"] == f"{number}-1-{'abcdefgh' * 4}"
        assert all(len(curve) == data["points"] for curve in entry["runs"]["curve"])


def test_curves_are_thinned_before_layers_go_and_go_last(add, tmp_path):
    systems = [(f"system-{number}", 1, 1 + number) for number in range(5)]
    write_fleet(
        tmp_path / "fleet", add(), systems, epochs=90, layer=lambda number: {"a": f"{number}" * 150}
    )  # fmt: skip
    lists = ranking_of(tmp_path / "fleet").lists
    sizes, kept = [], []
    room = 10**6
    while room > 0:
        text = page_data(lists, [], room)
        data = json.loads(text)
        sizes.append(len(text))
        kept.append((data["points"], data["layered"]))
        if len(text) > room:
            break
        room = len(text) - 1
    assert kept[:-1] == [*((points, True) for points in (90, 64, 45, 32, 24, 16, 12)), (12, False), (0, False)]
    assert sizes == sorted(sizes, reverse=True)


def test_a_name_that_would_end_the_script_is_escaped_in_the_data(add, results):
    add()
    text = page_data([ranked_with(results, system="</script><b>&")], [], 10**6)
    assert "<" not in text
    assert json.loads(text)["lists"][0]["entries"][0]["name"] == "</script><b>&"


def test_a_terminals_table_gives_up_columns_before_it_breaks_plain_names(add, results):
    for seed, seconds in enumerate((1005.5, 1155.5, 1255.5)):
        add(system="system-number-23", seed=seed, total_sec=seconds)
    ranked = ranked_with(results, rank=198, rank_low=198, rank_high=200, world_size=16384, backend="horovod")
    lines = ranking_text(ranking_document([ranked]), is_narrow=True).splitlines()
    assert max(map(drawn, lines)) <= 100
    assert any(line.startswith("198-200  system-number-23  16384") for line in lines)
    assert "no room for CV, FLOPS: --format md has every column" in "\n".join(lines)
    assert "no room" not in ranking_text(ranking_document([ranked]))


@pytest.mark.parametrize("name", ["漢字" * 60, "😀" * 50, "a\u0301" * 60, "x" * 200, "\u115f" * 50, "系统 two " * 20])
def test_wide_characters_count_as_two_columns_of_a_terminals_hundred(add, results, name):
    add()
    ranked = ranked_with(results, system=name)
    assert max(map(drawn, ranking_text(ranking_document([ranked]), is_narrow=True).splitlines())) <= 100


def test_a_folded_text_holds_all_its_letters_and_no_line_is_too_wide():
    for text in ("one two-three four", "漢字" * 9, "x" * 31, "", "a  b", "😀 " * 9):
        lines = folded(text, 10, first="  ", others="    ")
        assert max(map(drawn, lines)) <= 10
        assert "".join("".join(lines).split()) == "".join(text.split())
    assert folded("alpha beta gamma", 11) == ["alpha beta", "gamma"]
    assert [width(text) for text in ("ab", "漢", "e\u0301", "")] == [2, 2, 1, 0]


def test_a_figure_of_some_runs_says_of_how_many_and_is_ordered_like_none(add, results):
    for seed in range(5):
        add(seed=seed, energy=100.0 if seed else None)
    collected = collect([results])
    (ranked,) = rank(collected.runs)
    (entry,) = ranked.entries
    assert "VFLOPS/W (4 of 5 runs)" in ranking_text(ranking_document([ranked]))
    assert "(4 of 5)" in ranking_markdown(ranking_document([ranked]))
    assert "<br>(4 of 5)</td>" in ranking_page(ranking_document([ranked]))
    (row,) = csv.DictReader(io.StringIO(ranking_csv(ranking_document([ranked]))))
    assert (row["runs"], row["runs_with_energy"]) == ("5", "4")
    column = next(column for column in columns("vflops") if column.key == "vflops_per_watt")
    assert column.value(entry) is None  # which sorts last, as --by leaves it without a rank
    (by_watt,) = rank(collected.runs, by="vflops_per_watt")
    assert by_watt.entries[0].rank is None
    (report,) = repeatability(collected)
    energy = next(figure for figure in report.figures if figure.name == "energy (J)")
    assert (energy.num_all, energy.summary.num_runs) == (5, 4)
    lines = repeatability_text([report], []).splitlines()
    assert next(line for line in lines if line.startswith("energy (J)")).split()[2:5] == ["4", "of", "5"]


def test_a_time_to_quality_of_some_runs_is_marked_and_sorted_last(add, results):
    add(seed=0)
    add([0.5, 0.6], seed=1)
    (entry,) = rank(collect([results]).runs)[0].entries
    shown = {column.key: column for column in columns("vflops")}
    assert shown["time_to_quality"].text(entry) == "10 (1 of 2)"
    assert [shown[key].value(entry) for key in ("time_to_quality", "epochs_to_quality", "cv")] == [None] * 3
    assert shown["vflops"].value(entry) == entry.vflops.mean


def test_a_list_by_another_figure_shows_the_interval_of_that_figure(add, results):
    for seed, seconds in enumerate((9.0, 10.0, 11.0)):
        add(seed=seed, total_sec=seconds)
    (ranked,) = rank(collect([results]).runs, by="time_to_quality")
    # Mean 10, deviation 1, of 3: t(0.975, 2) = 4.302653, so that half an interval is 4.302653 / sqrt(3) = 2.484.
    span = "7.516\N{EN DASH}12.48"
    assert f"time to quality 10 s, 95 % interval {span}" in ranking_text(ranking_document([ranked]))
    assert f"| {span} " in ranking_markdown(ranking_document([ranked]))
    assert f">{span}</td>" in ranking_page(ranking_document([ranked]))
    keys = [column.key for column in columns("time_to_quality")]
    assert keys[keys.index("time_to_quality") + 1] == "interval"
    assert "95 % interval of time to quality" in ranking_markdown(ranking_document([ranked]))
    (row,) = csv.DictReader(io.StringIO(ranking_csv(ranking_document([ranked]))))
    assert (float(row["by_low"]), float(row["by_high"])) == pytest.approx((7.51586, 12.48414), rel=1e-5)


@pytest.mark.parametrize(("name", "shown"), [("# big", r"\# big"), ("- item", r"\- item"), ("1. one", r"1\. one")])
def test_a_note_in_markdown_is_a_paragraph_whatever_its_name_begins_with(add, results, name, shown):
    add(system="plain")
    ranked = ranked_with(results, system=name, not_placed="for a test")
    assert f"{shown}: no rank: for a test." in ranking_markdown(ranking_document([ranked])).splitlines()


def test_entries_of_one_name_are_told_apart_by_as_little_as_does_it(add, results):
    for ranks, overrides in ((1, {}), (2, {}), (2, {"execution.precision": "bf16"})):
        add(procs_per_node=ranks, overrides=overrides, unranked=False)
    add(system="alone")
    (ranked,) = rank(collect([results]).runs)
    drawn = json.loads(page_data([ranked], [], 10**6))["lists"][0]["entries"]
    assert sorted(one["name"] + one["tail"] for one in drawn) == [
        "alone", "testbox, 1 rank, fp32", "testbox, 2 ranks, bf16", "testbox, 2 ranks, fp32",
    ]  # fmt: skip


def test_a_csv_that_is_no_published_list_is_named(hpcai500, add, results, tmp_path):
    add()
    hpcai500("rank", results, "--output", tmp_path / "ranking.csv")
    code, _, err = hpcai500("rank", tmp_path / "ranking.csv")
    assert (code, "ranking.csv: no published list of a workload" in err) == (2, True)


def test_the_flops_of_an_epoch_are_over_its_training_on_the_page_and_in_show(add, results):
    result = newest_result(add() / "result.json")
    first = result.epochs[0]
    assert first.eval_sec > 0
    expected = first.flops / first.train_sec
    (ranked,) = ranking_of(results).lists
    entry = json.loads(page_data([ranked], [], 10**6))["lists"][0]["entries"][0]
    assert entry["runs"]["rate"][0][0] * entry["unit"] == pytest.approx(expected, rel=1e-3)
    line = next(line for line in run_text(result).splitlines() if line.startswith("  FLOPS "))
    assert line.endswith(", while training")
    assert f"  {quantity(expected, '')} to " in line


def test_a_unit_stands_apart_from_its_number():
    assert [quantity(value, "J") for value in (872.5, 1200.0, None)] == ["872.5 J", "1.2 kJ", "-"]


def test_energy_without_a_prefix_is_shown_apart_from_its_unit(add, hpcai500):
    assert "  energy    872.5 J, " in hpcai500("show", add(energy=436.25))[1]


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"null", b'{"schema_version": 2}', b'{"a": NaN}'])
def test_show_of_several_runs_names_the_one_at_fault(add, results, hpcai500, content):
    good, bad = add(), results / "bad"
    bad.mkdir()
    (bad / "result.json").write_bytes(content)
    code, out, err = hpcai500("show", good, bad)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert str(bad) in err


def test_an_ending_that_says_no_format_is_refused_unless_a_format_is_given(add, results, hpcai500, tmp_path):
    add()
    assert hpcai500("rank", results, "--output", tmp_path / "t.htm")[0] == 0
    assert (tmp_path / "t.htm").read_text().startswith("<!DOCTYPE html>")
    for name in ("t.txt", "t"):
        assert hpcai500("rank", results, "--output", tmp_path / name)[0] == 0
        assert (tmp_path / name).read_text().startswith("Image Classification")
    code, _, err = hpcai500("rank", results, "--output", tmp_path / "t.xyz")
    assert (code, err.count("\n"), (tmp_path / "t.xyz").exists()) == (2, 1, False)
    assert "no format has the ending .xyz" in err
    assert hpcai500("rank", results, "--output", tmp_path / "t.xyz", "--format", "csv")[0] == 0


def test_markdown_shows_an_entity_as_it_was_written(add, results):
    add()
    assert r"\&lt;b\&gt; \~\~x\~\~" in ranking_markdown(
        ranking_document([ranked_with(results, system="&lt;b&gt; ~~x~~")])
    )
