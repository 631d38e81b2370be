"""Search for short evaluation items with a small edit: a rephrased question, a typo, one word more or less.

For example, "What is $3 + 4$?" matches "Compute 3 + 4." but not "What is 3 + 5?"

Numbers, operators, variables and words such as *odd* or *least* (`math_words.is_fixed`) must be the same, in the same
order. One edit leaves the first or the last half of the words unchanged, so the index is by halves: each text is
compared only with the few items that share a half with it.
"""

import difflib
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence

from distill.sources.math_words import is_fixed, places

_WAYS_OF_ASKING = (
    "what whats is are the a an of find compute evaluate calculate determine give please value result answer "
    "expression following below your s equal to work out"
)
FILLERS = frozenset(_WAYS_OF_ASKING.split())
"""Words that only phrase the question."""

MIN_WORDS_TO_LOSE_ONE = 4
"""With fewer words left, one word more or less makes a different problem."""
MIN_ALIKE_CHARS = 4
MIN_ALIKE_RATIO = 0.8
"""difflib ratio from which two words in the same position count as one, with a typo or another ending."""

_SENTENCE_ENDS = re.compile(r"[?!;:\n]|\.(?=\s|\Z)")
_FORMULA_ENDS = re.compile(r"[$,\\)\]]")
_OPERATORS = frozenset("+-*/=<>^%&!")


def standing_alone(folded: str, spans: Sequence[tuple[int, int]]) -> list[bool]:
    """Return whether each span of tokens is not part of a longer formula: `3 + 4` in `3 + 4?`, not in `3 + 4 + 5`.

    Args:
        folded: a folded text (`math_words.fold`).
        spans: (first, after last) positions among its canonical tokens.
    """
    wanted = {place for span in spans for place in span}
    parted: dict[int, bool] = {}
    before, before_end = "", 0
    for place, (token, start, end) in enumerate(places(folded)):
        if place in wanted:
            parted[place] = _is_parted(before, folded[before_end:start], token)
        before, before_end = token, end
    return [parted.get(first, True) and parted.get(last, True) for first, last in spans]


def _is_parted(before: str, gap: str, after: str) -> bool:
    """Return whether two adjacent tokens belong to different formulas or sentences."""
    if not before or not is_fixed(before) or not is_fixed(after) or _SENTENCE_ENDS.search(gap):
        return True
    return not _OPERATORS & {before, after} and _FORMULA_ENDS.search(gap) is not None


class ShortItems:
    """Index of short items.

    Args:
        items: (number, tokens) of each item.
    """

    def __init__(self, items: Iterable[tuple[int, Sequence[str]]]) -> None:
        self._content: dict[int, tuple[str, ...]] = {}
        self._by_half: dict[tuple[str, tuple[str, ...]], list[int]] = defaultdict(list)
        self.max_tokens = 0
        """Most tokens that a matching text is assumed to have."""
        for number, tokens in items:
            content = _content(tokens)
            if not content:
                continue
            self._content[number] = content
            self.max_tokens = max(self.max_tokens, len(tokens) + len(FILLERS))
            half = len(content) // 2
            self._by_half["first", content[:half]].append(number)
            self._by_half["last", content[len(content) - half :]].append(number)

    def find(self, tokens: Sequence[str]) -> list[int]:
        """Return the numbers of the items that match a text of these tokens, in ascending order."""
        content = _content(tokens)
        size = len(content)
        found: set[int] = set()
        for half in {max(0, size - 1) // 2, size // 2, (size + 1) // 2} if content else ():
            found.update(self._by_half.get(("first", content[:half]), ()))
            found.update(self._by_half.get(("last", content[size - half :]), ()))
        return sorted(number for number in found if _is_one_edit(self._content[number], content))


def _content(tokens: Sequence[str]) -> tuple[str, ...]:
    return tuple(token for token in tokens if token not in FILLERS)


def _is_one_edit(a: tuple[str, ...], b: tuple[str, ...]) -> bool:
    """Return whether two texts are equal except for at most one word, which must not be fixed."""
    if a == b:
        return True
    long, short = (a, b) if len(a) >= len(b) else (b, a)
    if len(long) - len(short) > 1:
        return False
    same = next((i for i, (x, y) in enumerate(zip(long, short, strict=False)) if x != y), len(short))
    if is_fixed(long[same]):
        return False
    if len(long) > len(short):
        return len(short) >= MIN_WORDS_TO_LOSE_ONE and long[same + 1 :] == short[same:]
    return long[same + 1 :] == short[same + 1 :] and _alike(long[same], short[same])


def _alike(a: str, b: str) -> bool:
    if is_fixed(b) or min(len(a), len(b)) < MIN_ALIKE_CHARS or max(len(a), len(b)) > 2 * min(len(a), len(b)):
        return False
    return difflib.SequenceMatcher(None, a, b, autojunk=False).ratio() >= MIN_ALIKE_RATIO
