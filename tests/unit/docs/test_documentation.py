"""What the documentation names exists: links, headings, files, and commands that the command line takes."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcai500.cli.main import build_parser
from hpcai500.errors import HpcAi500Error

ROOT = Path(__file__).parents[3]
PAGES = [
    path.relative_to(ROOT)
    for pattern in ("*.md", "docs/*.md", "benchmarks/*.md", "examples/**/*.md", "workloads/**/*.md", "slurm/**/*.md")
    for path in sorted(ROOT.glob(pattern))
    if path.name != "CHANGELOG.md"  # history names what was
]
MADE_BY_USERS = {"data", "results", "logs", "validation"}
"""Folders of the checkout that commands write: files in them are no part of the documentation."""


def prose(page: Path) -> str:
    return re.sub(r"^```.*?^```", "", (ROOT / page).read_text(), flags=re.DOTALL | re.MULTILINE)


def headings(page: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    titles = re.findall(r"^#+ (.+)$", prose(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_relative_link_leads_somewhere(page):
    targets = re.findall(r"\]\(([^)\s]+)\)", prose(page))
    broken = []
    for target in targets:
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        found = (ROOT / page).parent / name if name else ROOT / page
        if not found.exists() or (anchor and anchor not in headings(found.resolve().relative_to(ROOT))):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_file_of_the_project_that_is_named_exists(page):
    """Code spans such as `hpcai500/errors.py`, from the checkout or from the package; `launch/launchers/` too."""
    spans = re.findall(r"`([\w.-]+(?:/[\w.-]+)*/?)`", prose(page))
    roots = (ROOT, ROOT / "hpcai500", (ROOT / page).parent)
    firsts = {path.name for root in roots for path in root.iterdir() if path.is_dir()} - MADE_BY_USERS
    named = [span for span in spans if "/" in span.rstrip("/") and span.split("/")[0] in firsts]
    assert [span for span in named if not any((root / span).exists() for root in roots)] == []


def commands(page: Path) -> Iterator[tuple[str, bool]]:
    """Each command of ours in the page, and whether it is whole.

    Lines of a block are. A code span without a placeholder may leave out what a command requires.
    """
    text = (ROOT / page).read_text()
    for block in re.findall(r"^```\w*\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE):
        for line in block.replace("\\\n", " ").splitlines():
            if re.search(r"(^|[$;&] ?|[/ ]bin/)\s*hpcai500 \w", line):
                yield line, True
    yield from (
        (span, False) for span in re.findall(r"`(hpcai500 [^`\n]+)`", prose(page)) if not re.search(r"[…|\[]", span)
    )


def words_of(line: str) -> Iterator[list[str]]:
    """The arguments of each call of hpcai500 in a line of shell."""
    lexer = shlex.shlex(re.sub(r"\d?>+\s*\S+", "", line), posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words: list[str] | None = None
    for token in [*lexer, ";"]:
        if set(token) <= set(";&|()<>"):
            if words:
                yield words
            words = None
        elif words is not None:
            words.append(token)
        elif token.endswith("hpcai500"):
            words = []


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_command_is_one_that_the_command_line_takes(page):
    parser = build_parser()
    wrong = []
    for line, is_whole in commands(page):
        for words in words_of(line):
            if "--help" in words:
                continue
            try:
                parser.parse_args(words)
            except HpcAi500Error as error:
                if is_whole or "required" not in str(error):
                    wrong.append(f"{line.strip()}: {error}")
    assert wrong == []


def test_the_pages_hold_commands_to_check():
    assert sum(len(list(words_of(line))) for page in PAGES for line, _ in commands(page)) > 50


def test_design_names_the_imports_between_rooms():
    """Rooms with a folder of their own; `cli/` uses all."""
    grimp = pytest.importorskip("grimp", reason="import-linter is not installed")
    rows = re.findall(
        r"^\| `([a-z/]+)/` \| .* \| ([a-z/, ]+) \|$", (ROOT / "docs/design.md").read_text(), re.MULTILINE
    )
    stated = {room: set(uses.split(", ")) - {"files"} for room, uses in rows if room != "cli"}
    rooms = {f"hpcai500.{room.replace('/', '.')}": room for room in stated}
    graph = grimp.build_graph("hpcai500")
    for module, room in rooms.items():
        inside = {module, *graph.find_descendants(module)}
        imported = {name for one in inside for name in graph.find_modules_directly_imported_by(one)} - inside
        assert {rooms[own] for name in imported if (own := _room_of(name, rooms))} == stated[room], room


def _room_of(name, rooms):
    return next((room for room in rooms if name == room or name.startswith(f"{room}.")), None)
