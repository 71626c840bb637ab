"""Words of messages that depend on a number."""


def counted(number: float, one: str, many: str = "") -> str:
    """`1 rank`, `2 ranks`, `0 breaches`; a fraction with three digits."""
    shown = f"{number}" if isinstance(number, int) else f"{number:.3g}"
    return f"{shown} {one if number == 1 else many or f'{one}s'}"
