"""Text for people: numbers with units, plurals, node lists, and only characters that are safe to print."""

import re
from collections.abc import Sequence

_PREFIXES = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_SMALL = ((1.0, ""), (1e-3, "m"), (1e-6, "u"), (1e-9, "n"))
_PREFIXED = ("FLOPS", "FLOP/s", "B/s", "B", "s", "samples/s", "1/s", "op/s")


def counted(number: float, one: str, many: str = "") -> str:
    """`1 rank`, `2 ranks`, `0 breaches`; a fraction with three digits."""
    shown = f"{number}" if isinstance(number, int) else f"{number:.3g}"
    return f"{shown} {one if number == 1 else many or f'{one}s'}"


def si(value: float | None) -> str:
    """`value` to four digits with an SI prefix; `-` for None."""
    if value is None:
        return "-"
    digits, prefix = scaled(value)
    return f"{digits} {prefix}".rstrip()


def scaled(value: float) -> tuple[str, str]:
    """Four digits and the SI prefix, which is empty below a thousand."""
    for factor, prefix in _PREFIXES:
        if abs(value) >= factor:
            return f"{value / factor:.4g}", prefix
    return f"{value:.4g}", ""


def one_line(text: str, most: int | None = None) -> str:
    """`text` on one line, without control characters of terminals; cut to `most` characters if given."""
    line = printable(" ".join(text.split()))
    return line if most is None or len(line) <= most else f"{line[: most - 1]}…"


def printable(text: str) -> str:
    """`text` without control characters of terminals."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def figure(value: float | str | None, unit: str, digits: int = 4) -> str:
    """`1.234 TFLOPS`, `12.5 us`, `31 C`; a string in quotes."""
    if value is None:
        return "-"
    if isinstance(value, str):
        return repr(value if len(value) <= 60 else f"{value[:57]}...")
    if unit not in _PREFIXED:
        return f"{value:.{max(digits, 6)}g} {unit}".rstrip()
    if unit == "s":
        steps: Sequence[tuple[float, str]] = _SMALL
    elif abs(value) < 1:
        steps = ((1.0, ""),)
    else:
        steps = (*_PREFIXES, (1.0, ""))
    factor, letter = next((step for step in steps if abs(value) >= step[0]), steps[-1])
    return f"{value / factor:.{digits}g} {letter}{unit}"


def change(value: float, reference: float) -> str:
    """`-12.3 %` of the reference; empty if the reference is zero."""
    if reference == 0:
        return ""
    return f"{100 * (value - reference) / abs(reference):+.3g} %"


def share(part: float | None, whole: float | None) -> str:
    """`4.1 %`, `120 %`; `0 %` below a thousandth; `-` if there is no part or no whole."""
    if part is None or not whole:
        return "-"
    percent = 100 * part / abs(whole)
    if percent < 0.1:
        return "0 %"
    return f"{percent:.2g} %" if percent < 99 else f"{percent:.0f} %"


def node_list(names: Sequence[str], most: int = 8) -> str:
    """Sorted names without duplicates, in Slurm's short form `node[01-03,07]`; at most `most` groups."""
    groups: dict[tuple[str, int, str], list[int]] = {}
    shown: list[str] = []
    for name in sorted(set(names), key=natural):
        match = re.fullmatch(r"(.*?)([0-9]{1,9})([^0-9]*)", name, re.DOTALL)
        if match:
            groups.setdefault((match[1], len(match[2]), match[3]), []).append(int(match[2]))
        else:
            shown.append(name)
    for (head, width, tail), numbers in groups.items():
        ranges = _ranges(numbers, width)
        cut = f"{','.join(ranges[:most])},..." if len(ranges) > most else ",".join(ranges)
        is_one = len(numbers) == 1
        shown.append(f"{head}{cut}{tail}" if is_one else f"{head}[{cut}]{tail}")
    return ", ".join(shown[:most]) + (f" and {len(shown) - most} more" if len(shown) > most else "")


def natural(name: str) -> tuple[tuple[int, str], ...]:
    """A sort key that puts `node2` before `node10`."""
    parts = re.split(r"([0-9]{1,18})", name)
    return tuple((int(part), "") if index % 2 else (-1, part) for index, part in enumerate(parts))


def _ranges(numbers: Sequence[int], width: int) -> list[str]:
    found: list[tuple[int, int]] = []
    for number in sorted(set(numbers)):
        if found and number == found[-1][1] + 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return [f"{a:0{width}d}" if a == b else f"{a:0{width}d}-{b:0{width}d}" for a, b in found]
