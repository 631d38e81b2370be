"""Counts with their nouns, for messages."""


def counted(number: int, one: str, several: str | None = None) -> str:
    """Return a number with its noun: `1 GPU`, `2,400 traces`, `3 passes`.

    Args:
        number: the count.
        one: the singular noun.
        several: the plural noun. Default: the singular with an `s`.
    """
    return f"{number:,} {one if number == 1 else several or one + 's'}"
