import json
import re

import pytest
from fleet import ranking_of, write_fleet

from hpcai500.report.ranking.page import render as ranking_page
from hpcai500.report.ranking.page_data import page_data
from hpcai500.score.ranking.document import with_sensitivity
from hpcai500.score.ranking.scaling import EXPONENTS
from hpcai500.score.record.result import write_result

pytestmark = pytest.mark.browser

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>"
FIRST = "section[data-kind=lists] table.ranking"


def column(page, heading):
    """The texts of one column of the first list, in the order shown."""
    return page.evaluate(
        """([table, heading]) => {
          const heads = [...document.querySelectorAll(`${table} > thead th`)];
          const at = heads.findIndex((head) => head.textContent.replace(/\\u00a0/g, " ") === heading);
          return [...document.querySelectorAll(`${table} > tbody > tr:not(.detail)`)]
            .filter((row) => !row.hidden).map((row) => row.children[at].dataset.v);
        }""",
        [FIRST, heading],
    )


def numbers(page, heading):
    return [float(value) for value in column(page, heading)]


def test_a_click_on_a_heading_sorts_and_another_turns_the_order(open_page):
    page = open_page()
    assert numbers(page, "VFLOPS") == sorted(numbers(page, "VFLOPS"), reverse=True)
    heading = page.locator(f"{FIRST} thead button", has_text="Time to")
    heading.click()
    assert numbers(page, "Time to quality (s)") == sorted(numbers(page, "Time to quality (s)"))
    heading.click()
    assert numbers(page, "Time to quality (s)") == sorted(numbers(page, "Time to quality (s)"), reverse=True)
    assert page.locator(f"{FIRST} th[aria-sort]").count() == 1
    page.locator(f"{FIRST} thead button", has_text="System").click()
    assert column(page, "System")[:4] == [HOSTILE, "alpha", "alpha", "alpha"]


def test_the_filter_keeps_what_holds_every_word(open_page):
    page = open_page()
    total = len(column(page, "System"))
    page.fill("#words", "ALPHA torch")
    assert column(page, "System") == ["alpha"] * 3
    assert page.locator("#count").inner_text() == f"3 of {total + 9} entries"
    assert page.locator("section.published").is_hidden()
    page.fill("#words", "")
    assert len(column(page, "System")) == total
    page.select_option(".filters select[data-field=problem]", "full")
    assert page.locator(FIRST).is_hidden()
    assert page.locator("section.published").is_visible()


def test_a_row_opens_into_its_runs_and_closes_again(open_page):
    page = open_page()
    page.locator(f"{FIRST} button.open").first.click()
    detail = page.locator("tr.detail")
    assert detail.locator(".runs tbody tr").count() == 3
    titles = detail.locator("figcaption").all_inner_texts()
    assert [title.split(" (")[0] for title in titles] == [
        "Quality over epochs",
        "FLOPS per epoch",
        "Where the time went",
    ]
    assert detail.locator("figure").first.locator("path.line").count() == 3
    assert "target 0.85" in detail.locator("svg text.strong").all_text_contents()
    assert {"1. Hardware", "9. Problem domain"} <= set(detail.locator(".layers summary").all_inner_texts())
    detail.locator(".layers summary").first.click()
    assert "Test CPU" in detail.locator(".layers dd").first.inner_text()
    page.locator(f"{FIRST} thead button", has_text="System").click()
    above = (
        "document.querySelector('tr.detail').previousElementSibling.querySelector('[aria-expanded=true]') !== null"
    )
    assert page.evaluate(above)  # an open detail moves with its row
    page.locator(f"{FIRST} button.open[aria-expanded=true]").click()
    assert page.locator("tr.detail").count() == 0


def test_everything_is_reached_by_the_keyboard(open_page):
    page = open_page()
    page.locator(f"{FIRST} button.open").first.focus()
    page.keyboard.press("Enter")
    assert page.locator("tr.detail").count() == 1
    page.locator("#theme").focus()
    seen = set()
    for _ in range(80):
        page.keyboard.press("Tab")
        seen.add(
            page.evaluate("(({ id, className, tagName }) => id || className || tagName)(document.activeElement)")
        )
    assert {"words", "open", "scroll", "SUMMARY"} <= seen
    page.locator("#theme").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"


def test_bars_have_intervals_and_the_other_plots_have_axes(open_page):
    page = open_page()
    charts = page.locator("section[data-kind=lists] .charts > figure")
    titles = [title.split(" (")[0] for title in charts.locator("figcaption").all_inner_texts()]
    assert titles == ["Valid FLOPS", "Rank by penalty exponent", "Scaling"]
    assert charts.nth(0).locator("rect.bar").count() == 6
    assert charts.nth(0).locator("path.whisker").count() == 6
    assert charts.nth(1).locator("path.line").count() == 6
    assert "penalty exponent n" in charts.nth(1).locator("text").all_text_contents()
    assert "speed-up" in charts.nth(2).locator("text").all_text_contents()


def test_names_are_text_and_never_markup(open_page):
    page = open_page()
    assert page.locator("script").count() == 2
    assert page.locator("img").count() == 0
    assert page.locator("tbody b", has_text="<script>alert(1)").count() == 1


def test_the_published_list_is_marked_and_its_swapped_rows_are_noted(open_page):
    page = open_page()
    published = page.locator("section.published")
    assert published.locator(".badge").inner_text() == "published, unverified"
    assert published.locator("tr.suspect").count() == 2
    assert "swapped" in published.inner_text()


@pytest.fixture
def write_page(tmp_path, make_spec, write_run):
    """The page of `systems`, their runs made from one of these qualities; `change` edits each result first."""

    def write_page(qualities, systems, change=lambda record: None, by="vflops", seeds=3):
        base = write_run(make_spec(output=str(tmp_path / "base")), qualities, total_sec=50.0, energy=100.0)
        write_result(base)
        write_fleet(tmp_path / "made", base, systems, seeds=seeds)
        for file in (tmp_path / "made").rglob("result.json"):
            record = json.loads(file.read_text())
            change(record)
            file.write_text(json.dumps(record))
        path = tmp_path / "made.html"
        path.write_text(ranking_page(ranking_of(tmp_path / "made", by=by)))
        return path

    return write_page


def test_a_list_whose_vflops_are_all_zero_is_drawn(open_page, write_page):
    page = open_page(file=write_page([0.0, 0.0], [("zero", 1, 1.0), ("nought", 1, 2.0)]))
    assert page.locator("rect.bar").count() == 2
    page.locator("button.open").first.click()
    page.wait_for_selector(".panel svg")
    assert page.locator("[x1=NaN], [x2=NaN], [width=NaN]").count() == 0


def test_scaling_of_hidden_systems_is_hidden(open_page):
    page = open_page()
    assert page.locator(".series:visible").count() == 1
    for words, number in (("gamma", 0), ("alpha", 1), ("", 1)):
        page.fill("#words", words)
        scaling = page.locator("section[data-kind=lists] figcaption", has_text="Scaling")
        assert (scaling.count(), page.locator(".series:visible").count()) == (number, number)


def test_a_name_keeps_its_letters_in_the_text_of_its_scaling(open_page, write_page):
    page = open_page(file=write_page([0.5, 0.9], [("DGX-H100 Frontier", 1, 1.0), ("DGX-H100 Frontier", 2, 1.9)]))
    assert page.locator(".series").inner_text().startswith("Strong scaling of DGX-H100 Frontier (")


def test_names_at_the_ends_of_shared_ranks_stand_apart(open_page, write_page):
    first = {}

    def copied(record):
        first.update(first or record)
        record.update({**first, "identity": record["identity"]})

    systems = [(f"an-even-longer-name-of-a-system-{letter}", 2, 1.0) for letter in "abc"]
    page = open_page(file=write_page([0.9], systems, copied))
    names = page.locator("figure", has_text="Rank by penalty").locator("svg > g > text")
    heights = [name.bounding_box()["y"] for name in names.all()]
    assert len({round(height) for height in heights}) == 3


def test_the_tab_key_goes_to_nothing_that_is_out_of_sight_on_a_phone(open_page):
    page = open_page(width=390)
    for _ in range(40):
        page.keyboard.press("Tab")
        box = page.evaluate("(({left, right}) => [left, right])(document.activeElement.getBoundingClientRect())")
        assert box[1] > 0
        assert box[0] < 390


def test_more_seeds_than_colours_are_told_apart_by_their_keys(open_page, write_page):
    page = open_page(file=write_page([0.5, 0.9], [("any", 1, 1.0)], seeds=10))
    page.locator("button.open").first.click()
    keys = page.locator(".panel figure", has_text="Quality over epochs").locator(".keys i")
    styles = [key.get_attribute("style") for key in keys.all()]
    assert len(set(styles)) == len(styles) == 10


def test_a_run_without_rates_is_left_out_of_their_plot(open_page, write_page):
    def forget(record):
        if record["identity"]["seed"] == 1:
            for epoch in record["epochs"]:
                epoch["train_sec"] = 1e-12  # too little for a rate

    page = open_page(file=write_page([0.5, 0.9], [("any", 1, 1.0)], forget))
    page.locator("button.open").first.click()
    page.wait_for_selector(".panel svg")


def test_the_line_of_scaling_joins_the_fastest_of_each_size(open_page, write_page):
    def spread(record):
        if record["identity"]["world_size"] == 3:
            record["identity"] |= {"world_size": 2, "nodes": 2}

    page = open_page(file=write_page([0.5, 0.9], [("any", 1, 1.0), ("any", 2, 1.9), ("any", 3, 1.2)], spread))
    series = page.locator("figure", has_text="Scaling").locator("svg > g").first
    assert series.locator("circle").count() == 3
    ends = re.findall(r"[ML]([\d.]+) ([\d.]+)", series.locator("path").get_attribute("d"))
    assert len(ends) == 2
    highest = min(float(dot.get_attribute("cy")) for dot in series.locator("circle").all())
    assert float(ends[1][1]) == pytest.approx(highest, abs=0.06)


def test_the_header_and_the_filter_count_the_same(open_page):
    page = open_page()
    assert "6 entries from 18 runs, 9 published," in page.locator("header").inner_text()
    assert page.locator("#count").inner_text() == "15 entries"


@pytest.mark.parametrize(
    ("letter", "count"), [("\u115f", 50), ("\u6f22", 100), ("\u00e9", 100), ("W", 100), ("i", 200)]
)
def test_any_name_keeps_to_a_phone_and_to_its_place_beside_the_bars(open_page, write_page, letter, count):
    def rename(record):
        record["identity"]["system"] = letter * count

    file = write_page([0.5, 0.9], [("any", 1, 1.0)], rename)
    for width in (390, 1440):
        page = open_page(width=width, file=file)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        left, right, edge, page_edge = page.evaluate(
            """() => {
              const label = document.querySelector("svg text.strong").getBoundingClientRect();
              const svg = document.querySelector("svg").getBoundingClientRect();
              return [label.left, label.right, svg.left, svg.right];
            }"""
        )
        assert left >= edge - 1
        assert right <= page_edge + 1


def test_a_mean_over_some_of_the_runs_sorts_last(open_page, write_page):
    lost = iter([True])

    def lose_energy(record):
        if record["identity"]["system"] == "frugal" and next(lost, False):
            record["energy"] = {"joules": None, "sources": [], "missing": ["no counter"]}
            record["score"]["vflops_per_watt"] = None

    page = open_page(file=write_page([0.5, 0.9], [("plain", 1, 1.0), ("frugal", 1, 3.0)], lose_energy))
    heading = page.locator(f"{FIRST} thead button", has_text="VFLOPS / W")
    for _ in range(2):
        heading.click()
        assert column(page, "System") == ["plain", "frugal"]
    assert "(2 of 3)" in page.locator(FIRST).inner_text()


def test_what_does_not_fit_is_left_out_with_the_reason(open_page, write_page, tmp_path):
    file = write_page([0.3, 0.5, 0.9], [("one", 1, 1.0)])
    document = ranking_of(tmp_path / "made")
    lists = with_sensitivity(document, EXPONENTS).lists
    whole, words = page_data(lists, [], 10**6), []
    layerless = page_data(lists, [], len(whole) - 1)
    for text in (whole, layerless, page_data(lists, [], len(layerless) - 1)):
        file.write_text(ranking_page(document).replace(whole, text))
        page = open_page(file=file)
        page.locator("button.open").first.click()
        words.append(page.locator(".panel p.quiet").inner_text())
    assert ["are left out" in text for text in words] == [False, True, True]
    assert "Layers are left out: with them this page would be larger than 1 MB." in words[1]
    assert "Curves and layers are left out: with them this page would be larger than 1 MB." in words[2]


def test_a_phone_needs_no_sideways_scrolling(open_page):
    page = open_page(width=375)
    page.locator("button.open").first.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    too_wide = page.evaluate(
        """[...document.querySelectorAll("main td, main h2, main li, figure svg text")].filter((node) => {
          const box = node.getBoundingClientRect();
          return box.width && !node.closest(".runs-scroll") && (box.right > 376 || box.left < -1);
        }).map((node) => node.textContent)"""
    )
    assert too_wide == []
    page.locator(".sorter").first.select_option(label="System")
    assert column(page, "System")[-1] == "gamma"
    page.locator(".turn").first.click()
    assert column(page, "System")[0] == "gamma"


CONTRAST = """() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const linear = (v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => [r, g, b].map((v) => linear(v / 255))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (node) => {
    for (let up = node; up; up = up.parentElement) {
      const found = parse(getComputedStyle(up).backgroundColor);
      if (found.length === 3 || found[3] > 0) return found;
    }
    return [255, 255, 255];
  };
  const poor = [];
  let checked = 0;
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !node.getClientRects().length || node.nodeName === "title") continue;
    const style = getComputedStyle(node);
    const ink = parse(node.namespaceURI.endsWith("svg") ? style.fill : style.color);
    const [a, b] = [light(ink), light(behind(node))].sort((x, y) => y - x);
    checked += 1;
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) poor.push([node.textContent.slice(0, 40), ratio.toFixed(2)]);
  }
  return { checked, poor };
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_have_the_contrast_of_wcag_aa(open_page, scheme):
    page = open_page(scheme=scheme)
    page.locator("button.open").first.click()
    page.locator("tr.detail summary").first.click()
    found = page.evaluate(CONTRAST)
    assert found["checked"] > 200
    assert found["poor"] == []


def test_the_theme_follows_the_system_until_one_is_chosen(open_page):
    page = open_page(scheme="dark")

    def background():
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    dark = background()
    assert page.locator("#theme").inner_text() == "Light theme"
    page.locator("#theme").click()
    assert background() != dark
    assert page.locator("#theme").inner_text() == "Dark theme"
    assert page.evaluate("document.documentElement.dataset.theme") == "light"
