"""Check docstrings, comments and messages against the project's voice: `python tools/voice.py PATH…`.

The rules are the ones that a program can check: first words, banned words, and the length of a sentence.
It prints `file:line: what is wrong` for each breach and exits with 1 if there are any.
"""

import argparse
import ast
import io
import re
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

MOST_WORDS = 25

FIRST_WORDS = ("As", "By", "Into", "Its", "Of", "That", "The same", "Those", "Whose", "With")
"""A docstring starts with the noun that it defines or the verb that it does, not with one of these."""

_COUNTED = (
    "one|once|twice|times|bytes|cores|CPUs|epochs|events|files|FLOPs|folders|GPUs|lines|processes|ranks|runs|samples|"
    "seconds|tasks|threads"
)
_UNITS = "core|epoch|GPU|level|node|pass|process|rank|run|sample|second|seed|step"

ADVICE = {
    r"mend(?:s|ed|ing)?": "fix",
    r"(?:held|hold|holds|holding) (?:\w+ )?against": "compare with",
    r"(?:go|goes|going|gone|went) on": "continue",
    r"alone": "only, or by itself",
    r"lest": "so that ... not",
    r"tell|tells|telling|told": "be, have, name or show",
    r"says?|said|saying": "state, report or print",
    r"stands?|stood|standing": "be, lie or have",
    r"believe[sd]?|believing": "accept, or rank",
    rf"(?:{_COUNTED}) an? (?:{_UNITS})": "per",
    r"beside": "next to, or besides",
}
"""Banned words as patterns, with what to write instead."""

_BANNED = {re.compile(rf"\b(?:{pattern})\b", re.IGNORECASE): instead for pattern, instead in ADVICE.items()}
_CODE = re.compile(r"``[^`]+``|`[^`]+`|\"[^\"\n]*\"|https?://\S+")
_DIRECTIVE = re.compile(r"#\s*(?:!|noqa|type:|fmt:|ruff:|pragma|mypy:|-\*-)")
_SENTENCE_END = re.compile(r"(?<=[.!?])[)\"]?\s+|:\s+|:$")
_LIST_ITEM = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s+")
_FORMULA = re.compile(r"[=^<>+/|*]|\d")
_ABBREVIATION = re.compile(r"\b(e\.g|i\.e|etc|vs|cf|al)\.")


class Text(NamedTuple):
    """A piece of prose in a source file."""

    line: int
    kind: str
    """`docstring`, `comment` or `message`."""
    content: str


class Breach(NamedTuple):
    path: Path
    line: int
    what: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.what}"


def texts_of(source: str) -> Iterator[Text]:
    """Docstrings, comments and messages of a module, in no particular order."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        for body in (getattr(node, "body", None), getattr(node, "orelse", None)):
            yield from _docstrings(body) if isinstance(body, list) else ()
        if isinstance(node, ast.Raise) and node.exc:
            yield from _messages(node.exc)
    yield from _comments(source)


def _docstrings(body: Sequence[ast.stmt]) -> Iterator[Text]:
    """Every statement that is only a string: of a module, a class, a function or the attribute above it."""
    for statement in body:
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
            value = statement.value.value
            if isinstance(value, str):
                yield Text(statement.lineno, "docstring", value)


def _messages(raised: ast.expr) -> Iterator[Text]:
    for node in ast.walk(raised):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield Text(node.lineno, "message", node.value)


def _comments(source: str) -> Iterator[Text]:
    """Comments; whole-line comments that follow each other are one text."""
    first, lines = 0, list[str]()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.NL:
            continue
        whole = token.type == tokenize.COMMENT and not token.line[: token.start[1]].strip()
        if lines and not (whole and token.start[0] == first + len(lines)):
            yield Text(first, "comment", "\n".join(lines))
            lines = []
        if token.type != tokenize.COMMENT or _DIRECTIVE.match(token.string):
            continue
        text = token.string.lstrip("#").strip()
        if not whole:
            yield Text(token.start[0], "comment", text)
            continue
        first = first if lines else token.start[0]
        lines.append(text)


def faults_of(text: Text) -> Iterator[tuple[int, str]]:
    """Lines of the file and what is wrong there."""
    if text.kind == "docstring":
        start = text.content.strip()
        for words in FIRST_WORDS:
            if re.match(rf"{words}\b", start):
                yield text.line, f"a docstring begins with {words!r}; begin with the noun that it defines"
    for offset, line in enumerate(text.content.splitlines()):
        prose = _CODE.sub("`code`", line)
        for pattern, instead in _BANNED.items():
            if found := pattern.search(prose):
                yield text.line + offset, f"{found[0]!r}; write {instead}"
    if text.kind != "message":
        for offset, sentence in sentences(text.content):
            if (number := num_words(sentence)) > MOST_WORDS:
                yield text.line + offset, f"a sentence of {number} words; at most {MOST_WORDS}: {sentence[:40]}…"


def sentences(content: str) -> Iterator[tuple[int, str]]:
    """Each sentence with the index of its first line. A list's item and the part after a colon are their own."""
    for first, block in _blocks(content):
        position = 0
        text = _ABBREVIATION.sub(r"\1", block)
        for part in _SENTENCE_END.split(text):
            at = text.find(part, position)
            position = at + len(part)
            if part.strip():
                yield first + text[:at].count("\n"), " ".join(part.split())


def _blocks(content: str) -> Iterator[tuple[int, str]]:
    """Paragraphs and list items, each with the index of its first line; drawings are left out."""
    first, lines = 0, list[str]()
    for index, line in enumerate(content.splitlines()):
        is_drawing = any(letter in line for letter in "─│├└┌▶►")
        if lines and (not line.strip() or is_drawing or _LIST_ITEM.match(line)):
            yield first, "\n".join(lines)
            lines = []
        if line.strip() and not is_drawing:
            first = first if lines else index
            lines.append(_LIST_ITEM.sub("", line))
    if lines:
        yield first, "\n".join(lines)


def num_words(sentence: str) -> int:
    """Words of a sentence. A code span is one word; numbers, operators and variables of a formula are none."""
    words = _CODE.sub("code", sentence).split()
    return sum(1 for word in words if re.search(r"[A-Za-z]{2}|^[aAI]$", word) and not _FORMULA.search(word))


def breaches_of(path: Path) -> list[Breach]:
    """All breaches in a Python file, by line."""
    source = path.read_text(encoding="utf-8")
    found = {(line, what) for text in texts_of(source) for line, what in faults_of(text)}
    return [Breach(path, line, what) for line, what in sorted(found)]


def python_files(paths: Sequence[Path]) -> Iterator[Path]:
    """The Python files at or below `paths`, without hidden and packaged ones."""
    for path in paths:
        for file in [path] if path.is_file() else sorted(path.rglob("*.py")):
            if not any(part.startswith(".") or part in ("_data", "__pycache__") for part in file.parts[1:]):
                yield file


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Check the voice of docstrings, comments and messages.")
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="Python files, or folders of them")
    parser.add_argument("--count", action="store_true", help="print only the number of breaches of each folder")
    args = parser.parse_args(argv)
    for path in args.paths:
        if not path.exists():
            parser.error(f"{path}: no such file or folder")
    breaches = [breach for path in python_files(args.paths) for breach in breaches_of(path)]
    if args.count:
        for folder, number in sorted(Counter(breach.path.parent for breach in breaches).items()):
            print(f"{number:5d}  {folder}")
        print(f"{len(breaches):5d}  in all")
    else:
        for breach in breaches:
            print(breach)
    return 1 if breaches else 0


if __name__ == "__main__":
    sys.exit(main())
