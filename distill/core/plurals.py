"""Counted things in messages."""


def counted(number: int, one: str, several: str | None = None) -> str:
    """Write a number with its noun: `1 GPU`, `2,400 traces`, `3 passes`.

    Args:
        number: how many.
        one: the noun for one of them.
        several: the noun for several; left out: with an `s` at its end.
    """
    return f"{number:,} {one if number == 1 else several or one + 's'}"
