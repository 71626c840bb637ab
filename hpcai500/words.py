"""Numbers and words as people read them, and what may be printed."""

_PREFIXES = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


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


def one_line(text: str) -> str:
    """`text` without line breaks and what a terminal would act on."""
    return printable(" ".join(text.split()))


def printable(text: str) -> str:
    """`text` without what a terminal would act on."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
