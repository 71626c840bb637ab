"""The linter of docstrings, comments and messages."""

import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "tools"))
import voice

LONG = " ".join(["word"] * 26)


def faults(tmp_path, source: str) -> list[str]:
    path = tmp_path / "module.py"
    path.write_text(source)
    return [f"{breach.line}: {breach.what}" for breach in voice.breaches_of(path)]


@pytest.mark.parametrize(
    "source",
    [
        '"""Seconds for one call."""\n',
        'def f():\n    """Return the seconds.\n\n    Raises:\n        ValueError: if there are none.\n    """\n',
        "# A comment has nothing that is banned, and `told` in code is allowed.\n",
        "x = 1  # noqa: E501 - told alone\n",
        "raise ValueError('fix the file')\n",
        "x = 'Of one. It stands alone.'\n",
        '"""The samples that a rank trains."""\n',
    ],
)
def test_plain_text_has_no_breach(tmp_path, source):
    assert faults(tmp_path, source) == []


@pytest.mark.parametrize("words", voice.FIRST_WORDS)
def test_a_docstring_begins_with_the_noun_that_it_defines(tmp_path, words):
    for source in (f'"""{words} one."""\n', f'class A:\n    x = 1\n    """{words} one."""\n'):
        assert [fault for fault in faults(tmp_path, source) if f"begins with {words!r}" in fault]
    assert faults(tmp_path, f"x = 1  # {words.lower()} one\n") == []


@pytest.mark.parametrize(
    ("text", "instead"),
    [
        ("mend the file", "fix"), ("it goes on", "continue"), ("by rank 0 alone", "only"), ("it tells why", "name"),
        ("he was told", "name"), ("the log says so", "state"), ("it stands there", "lie"),
        ("runs held against", "compare"), ("one a GPU", "per"), ("samples a second", "per"),
        ("files beside it", "next to"), ("it believes it", "accept"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("form", ['"""A {}."""', "# {}", "raise ValueError('{}')", "raise ValueError(f'{{x}} {}')"])
def test_a_banned_word_is_named_with_another_one(tmp_path, form, text, instead):
    assert [fault for fault in faults(tmp_path, f"{form.format(text)}\n") if instead in fault]


def test_code_spans_and_quotes_may_contain_any_word(tmp_path):
    assert faults(tmp_path, '"""The key `told` and the word "alone"."""\n') == []


def test_a_sentence_has_at_most_25_words(tmp_path):
    assert faults(tmp_path, f'"""A. {LONG.removesuffix(" word")}. B."""\n') == []
    assert faults(tmp_path, f'"""{LONG}."""\n') == ["1: a sentence of 26 words; at most 25: " + LONG[:40] + "…"]
    assert len(faults(tmp_path, f"# {LONG[:60]}\n# {LONG[60:]}\n")) == 1


@pytest.mark.parametrize(
    "text",
    [
        f"{LONG[:60]}\n\n{LONG[60:]}",
        f"- {LONG[:60]}\n- {LONG[60:]}",
        f"{LONG[:60]}: {LONG[60:]}",
        f"{' '.join(['word'] * 24)} `{LONG}`",
        " ".join(["word"] * 24) + " a = b + c * d / e",
        f"└── {LONG}",
        f"{LONG[:60]}, e.g. {LONG[60:79]}",
    ],
)
def test_paragraphs_items_code_formulas_and_drawings_do_not_make_a_sentence_long(tmp_path, text):
    assert faults(tmp_path, f'"""{text}."""\n') == []


def test_a_breach_is_at_its_own_line(tmp_path):
    source = f'"""A module.\n\nIt is told.\n"""\n\nx = 1\n"""Of one."""\n# Fine.\n# {LONG}\n'
    assert [fault.partition(":")[0] for fault in faults(tmp_path, source)] == ["3", "7", "9"]


def test_the_command_prints_breaches_and_exits_with_1(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "good.py").write_text('"""A module."""\n')
    (tmp_path / "a" / "bad.py").write_text('"""Of a module, alone."""\n')
    (tmp_path / "a" / "_data").mkdir()
    (tmp_path / "a" / "_data" / "copy.py").write_text('"""Of a module."""\n')

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, voice.__file__, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    done = run(str(tmp_path / "a"))
    assert done.returncode == 1
    assert [line.partition(": ")[0] for line in done.stdout.splitlines()] == [f"{tmp_path}/a/bad.py:1"] * 2
    done = run("--count", str(tmp_path / "a"))
    assert (done.returncode, done.stdout.split()) == (1, ["2", f"{tmp_path}/a", "2", "in", "all"])
    done = run(str(tmp_path / "a" / "good.py"))
    assert (done.returncode, done.stdout) == (0, "")
