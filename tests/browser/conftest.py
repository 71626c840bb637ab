"""A real headless Chromium, and a page of several systems made from one run."""

import os
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
from fleet import ranking_of, write_fleet

from hpcai500.files import data_dir
from hpcai500.report.ranking.page import render as ranking_page
from hpcai500.score.ranking.published import rank_published
from hpcai500.score.record.result import write_result

PUBLISHED = data_dir("workloads") / "image_classification" / "published" / "2020-07.csv"
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>"
SYSTEMS = (
    ("alpha", 1, 1.0),
    ("alpha", 2, 1.9),
    ("alpha", 4, 3.6),
    ("beta", 4, 4.9),
    ("gamma", 2, 0.6),
    (HOSTILE, 2, 2.6),
)


def missing() -> str:
    if find_spec("playwright") is None:
        return "playwright is not installed: pip install -e '.[dev]'"
    return "" if _chromium() else "no chromium: apt-get install chromium"


def _chromium() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def pytest_collection_modifyitems(items):
    lacking = missing()
    for item in items:
        if "browser" in item.keywords and lacking:
            if os.environ.get("HPCAI500_REQUIRE_BROWSER") == "1":
                raise pytest.UsageError(f"HPCAI500_REQUIRE_BROWSER=1, but {lacking}")
            item.add_marker(pytest.mark.skip(reason=lacking))


@pytest.fixture(scope="session")
def chromium():
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_chromium(), args=flags)
        yield browser
        browser.close()


@pytest.fixture
def page_file(tmp_path, make_spec, write_run) -> Path:
    base = write_run(make_spec(), [0.3, 0.6, 0.8, 0.88, 0.9], total_sec=50.0)
    write_result(base)
    results = tmp_path / "fleet"
    write_fleet(results, base, SYSTEMS, seeds=3)
    (results / "broken").mkdir()
    (results / "broken" / "result.json").write_text("{")
    path = tmp_path / "ranking.html"
    path.write_text(ranking_page(ranking_of(results, [rank_published(PUBLISHED)])))
    return path


@pytest.fixture
def open_page(chromium, page_file):
    """The page from disk, without a network; at its end no error and no request may have come up."""
    contexts, problems = [], []

    def open_page(width=1440, scheme="light", file=None):
        context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: problems.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("dialog", lambda dialog: (problems.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda request: request.url.startswith(("file:", "data:")) or problems.append(request.url))
        page.goto((file or page_file).as_uri())
        page.wait_for_selector("figure svg", state="attached")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert problems == []
