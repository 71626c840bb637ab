"""Words of messages: what depends on a number, and what may be printed."""


def counted(number: float, one: str, many: str = "") -> str:
    """`1 rank`, `2 ranks`, `0 breaches`; a fraction with three digits."""
    shown = f"{number}" if isinstance(number, int) else f"{number:.3g}"
    return f"{shown} {one if number == 1 else many or f'{one}s'}"


def one_line(text: str) -> str:
    """`text` without line breaks and what a terminal would act on."""
    return printable(" ".join(text.split()))


def printable(text: str) -> str:
    """`text` without what a terminal would act on."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
