"""Count tokens with the student's tokenizer if it is on this machine, or else estimate them from characters."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distill.estimates.quantities import Range
from distill.models.tokenizers import TOKENIZER

CHARS_PER_TOKEN = Range(2.5, 4.2)
"""Characters per token in mathematics and English prose."""
COUNTED_CHARS = 1_000_000
"""Most characters whose tokens are counted."""
SAMPLING_ERROR = 0.03
"""Assumed: share by which the counted texts differ from all texts."""


class TokenRate:
    """Measures tokens per character of texts."""

    def __init__(self, model: Path | None = None) -> None:
        """Create the counter; the tokenizer is loaded when it is first needed.

        Args:
            model: the student's folder, if it is on this machine.
        """
        self._file = model / TOKENIZER if model is not None else None
        self._tokenizer: Any = None

    def of(self, texts: Sequence[str]) -> Range:
        """Return the tokens per character of these texts."""
        shown, num_chars = [], 0
        for text in texts:
            if num_chars >= COUNTED_CHARS:
                break
            shown.append(text[: COUNTED_CHARS - num_chars])
            num_chars += len(shown[-1])
        if not num_chars or self._file is None or not self._file.is_file():
            return Range(1 / CHARS_PER_TOKEN.high, 1 / CHARS_PER_TOKEN.low)
        if self._tokenizer is None:
            from tokenizers import Tokenizer

            try:
                self._tokenizer = Tokenizer.from_file(str(self._file))
            except Exception:  # the library raises plain exceptions; training will report a broken tokenizer
                self._file = None
                return self.of(texts)
        # Not as a batch: it would start threads, after which the library warns at every fork.
        rate = sum(len(self._tokenizer.encode(text, add_special_tokens=False).ids) for text in shown) / num_chars
        return Range(rate * (1 - SAMPLING_ERROR), rate * (1 + SAMPLING_ERROR))


def tokens_of(chars: Range) -> Range:
    """Estimate the tokens of a text from its number of characters."""
    return Range(chars.low / CHARS_PER_TOKEN.high, chars.high / CHARS_PER_TOKEN.low, chars.basis)
