import pytest

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
