import pytest
from partition import Partition
from test_page import CONTRAST

from hpcai500.report.validation.render import render
from hpcai500.validate.files import Trouble
from hpcai500.validate.judge.verdict import judge

pytestmark = pytest.mark.browser

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>"


def spoilt(folder, num_nodes=8, **options):
    """A slow node, a bad adapter, another version, a silent node, a hostile name."""
    partition = Partition(num_nodes, num_gpus=2, **options).change(0.7, stage="micro", node="node0003")
    partition.change(0.3, stage="links", node="node0001").change("2.14", metric="layer4.torch", node="node0005")
    partition.drop(lambda one: "node0002" in one.nodes)
    partition.plan = partition.plan.model_copy(update={"nodes": (*partition.nodes, HOSTILE), "system": HOSTILE})
    partition.found.append(Trouble(stage="health", nodes=(HOSTILE,), kind="failed", message=HOSTILE, remedy="`x`"))
    return judge(partition.write(folder))


@pytest.fixture
def open_report(chromium, tmp_path):
    """A report from disk, without a network; at its end no error and no request may have come up."""
    contexts, problems = [], []

    def open_report(report, width=1300, scheme="light"):
        path = tmp_path / "report.html"
        path.write_text(render(report, "html"))
        context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: problems.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("dialog", lambda dialog: (problems.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda request: request.url.startswith(("file:", "data:")) or problems.append(request.url))
        page.goto(path.as_uri())
        page.wait_for_selector("main")
        return page

    yield open_report
    for context in contexts:
        context.close()
    assert problems == []


def nodes(page):
    return page.locator("#heat tbody tr:not(.detail) th").all_inner_texts()


def test_verdict_findings_heat_map_and_matrix_stand_in_this_order(open_report, tmp_path):
    page = open_report(spoilt(tmp_path / "v"))
    assert page.locator(".verdict").inner_text() == "FAIL"
    assert page.locator("main h2").all_inner_texts() == ["Findings", "Nodes by metric", "Links", "Metrics"]
    named = page.locator(".findings tbody tr td.name").all_inner_texts()
    assert sorted(named)[1:] == [f"{HOSTILE}, node0002", "node0001", "node0003", "node0005"]
    slow = page.locator("#heat tbody tr", has_text="node0003").locator("td").all_inner_texts()
    assert [text[:2] for text in slow] == ["\N{MINUS SIGN}3"] * 2
    assert page.locator("#heat tbody tr", has_text="node0003").locator("td.c3").count() == 2
    assert page.locator("#heat tbody tr", has_text="node0002").locator("td.cn").count() == 2
    assert page.locator("#matrix rect.c3").count() == 2 * 6  # node0001 with six others, on both sides
    assert "node0001" in page.locator("#slowest tbody tr").first.inner_text()


def test_names_are_text_and_never_markup(open_report, tmp_path):
    page = open_report(spoilt(tmp_path / "v"))
    assert page.locator("script").count() == 2
    assert page.locator("img").count() == 0
    assert HOSTILE in page.locator("h1").inner_text()
    assert HOSTILE in nodes(page)


def test_the_filter_keeps_findings_and_nodes_with_every_word(open_report, tmp_path):
    page = open_report(spoilt(tmp_path / "v"))
    page.fill("#words", "NODE0003")
    assert page.locator(".findings tbody tr:visible").count() == 1
    assert nodes(page) == ["node0003"]
    page.fill("#words", "layer4.torch")
    assert nodes(page) == ["node0005"]
    page.fill("#words", "")
    assert len(nodes(page)) == 9


def test_everything_is_reached_by_the_keyboard(open_report, tmp_path):
    page = open_report(spoilt(tmp_path / "v"))
    page.locator("#heat button.open", has_text="node0003").focus()
    page.keyboard.press("Enter")
    assert "gemm_bf16_flops" in page.locator("tr.detail").inner_text()
    page.keyboard.press("Enter")
    assert page.locator("tr.detail").count() == 0
    page.locator("#theme").focus()
    seen = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        seen.add(
            page.evaluate("(({ id, className, tagName }) => id || className || tagName)(document.activeElement)")
        )
    assert {"words", "SUMMARY", "scroll heat-scroll", "open", "matrix"} <= seen


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_have_the_contrast_of_wcag_aa(open_report, tmp_path, scheme):
    page = open_report(spoilt(tmp_path / "v"), scheme=scheme)
    page.locator("#heat button.open").first.click()
    page.locator("section summary").last.click()
    found = page.evaluate(CONTRAST)
    assert found["checked"] > 100
    assert found["poor"] == []


def test_a_phone_needs_no_sideways_scrolling(open_report, tmp_path):
    page = open_report(spoilt(tmp_path / "v"), width=375)
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    too_wide = page.evaluate(
        """[...document.querySelectorAll("main td, main h2, main li, main p")].filter((node) => {
          const box = node.getBoundingClientRect();
          return box.width && !node.closest(".heat-scroll, #matrix") && (box.right > 376 || box.left < -1);
        }).map((node) => node.textContent)"""
    )
    assert too_wide == []


def test_5000_nodes_show_the_worst_first_and_any_other_by_its_name(open_report, tmp_path):
    page = open_report(spoilt(tmp_path / "v", 5_000, rounds=3))
    shown = nodes(page)
    assert len(shown) == 50
    assert {"node0001", "node0002", "node0003", "node0005"} <= set(shown[:6])
    page.locator("#more").click()
    assert len(nodes(page)) == 100
    page.fill("#words", "node4711")
    assert nodes(page) == ["node4711"]


def test_a_partition_without_findings_says_so(open_report, tmp_path):
    page = open_report(judge(Partition(4).write(tmp_path / "v")))
    assert page.locator(".verdict").inner_text() == "PASS"
    assert "None: every node answered" in page.locator("#findings").inner_text()
