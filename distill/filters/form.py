r"""Measures of a trace's form: paragraphs, code, boxed results, refusals and repeated instructions.

Example:

    boxed_answers(r"So $\boxed{3}$. No: $\boxed{4}$.") == BoxedAnswers(("3", "4"), num_disagreeing=2)
"""

import re
from collections import deque
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import pairwise, repeat
from typing import Any, NamedTuple

import numpy as np

from distill.grading.boxes import has_separator
from distill.grading.extraction import extract_answer
from distill.grading.latex import MAX_ANSWER_CHARS
from distill.grading.math import normalise, same_answer

SHINGLE_WORDS = 8
"""Words in a piece of an instruction; shorter runs of words match by chance."""

MAX_BOXES = 50
"""Only this many of the last boxed results are compared."""

MAX_OPEN = 1_000
"""Most open braces that are tracked; beyond that, the outermost are dropped."""

_FENCE = re.compile(r"^[ \t]{0,3}```", re.MULTILINE)
# Possessive quantifiers keep the time linear in the text's length, even with thousands of unclosed delimiters.
_SET_ASIDE = re.compile(
    r"```[^`]*+(?:`(?!``)[^`]*+)*+(?:```|\Z)"
    r"|\$\$[^$]*+(?:\$(?!\$)[^$]*+)*+\$\$"
    r"|\\\[[^\\]*+(?:\\(?![\[\]])[^\\]*+)*+\\\]"
    r"|\\begin\{(\w++\*?)\}[^\\]*+(?:\\(?!begin\b|end\b)[^\\]*+)*+\\end\{\1\}"
)
_FENCED = re.compile(r"```[^`]*+(?:`(?!``)[^`]*+)*+(?:```|\Z)")


def longest_paragraph(text: str) -> int:
    """Return the length in characters of the longest line, without display formulas, fenced code and table rows.

    A line break ends a paragraph, as in a plain-text display of the trace; a list is therefore not one paragraph.
    """
    if "```" in text:
        text = _FENCED.sub("\n", text)
    lines = text.split("\n")
    longest = _visible(max(lines, key=len))
    for line in sorted((line for line in lines if len(line) > longest), key=len, reverse=True):
        if len(line) > longest:
            longest = max(longest, _visible(line))
    return longest


def _visible(line: str) -> int:
    return 0 if line.lstrip().startswith("|") else len(_SET_ASIDE.sub("", line).strip())


def num_code_blocks(text: str) -> int:
    """Return the number of fenced code blocks, including one that was cut off."""
    if "```" not in text:
        return 0
    return -(-len(_FENCE.findall(text)) // 2)


class BoxedAnswers(NamedTuple):
    r"""The results that a content puts into `\boxed{…}`."""

    answers: tuple[str, ...]
    """The distinct results, normalised, in order."""
    num_disagreeing: int
    """Most distinct results given for the same thing: 1 if all agree, 0 if there are none."""


class _Box(NamedTuple):
    start: int
    end: int
    answer: str


_BRACE = re.compile(r"(?P<box>\\(?:boxed|fbox)\s*+\{)|\\.|[{}]", re.DOTALL)
_BLANK = re.compile(
    r"\\(?:h|v)?phantom\s*+\{[^{}]*+\}|\\(?:square|Box|quad|qquad|cdots|ldots|dots)(?![a-zA-Z])|\\[ ,;!]|[?_.\s]"
)
"""Content of a placeholder box, which shows where a number goes and holds no result."""
_GLUE = re.compile(r"(?:[\s,;.$&]|\\[()\[\],;!]|\\text\{\s*(?:and|or)\s*\}|\\q?quad|\band\b|\bor\b|\w{1,3}\s*=)*+")
_NAME = re.compile(r"([^\W\d_](?:_?\{?\w\}?)?)\s*=\s*(?:\$|\\[(\[])?\s*\Z")
_PART = re.compile(
    r"\s*+(?:[*#>-]\s*+)*+\(?((?:part|case|question|problem|step)?\s*+(?:[a-h]|[ivx]{1,4}|\d{1,2}))[).:*]", re.I
)
_INNER_NAME = re.compile(r"([^\W\d_](?:_\{?\w\}?)?)=(.+)", re.DOTALL)
_UNIT = re.compile(r"(?<=\d)(?:\\?[^\W\d]+|\\%|[%°]|\^\{?\\circ\}?|\^\{?\d\}?)+\Z")


def boxed_answers(content: str) -> BoxedAnswers:
    r"""Return the boxed results of a content, and whether they disagree.

    Two results disagree if they are given for the same thing and differ even without their units. Joined boxes
    (`\boxed{1} and \boxed{2}`) are parts of one answer; a later box that repeats one of them agrees with it. Boxes for
    differently named things (`x = \boxed{1}` … `y = \boxed{2}`, or parts (a) and (b)) are not compared.
    """
    starts = [start for start in (content.find("\\boxed"), content.find("\\fbox")) if start >= 0]
    if not starts:
        return BoxedAnswers((), 0)
    boxes = list(deque(_boxes(content, min(starts)), maxlen=MAX_BOXES))
    if len(boxes) == 1:
        return BoxedAnswers((normalise(boxes[0].answer),), 1)
    by_name: dict[str, dict[tuple[str, ...], None]] = {}  # name -> its groups, in order
    for group in _side_by_side(content, boxes):
        name = _name_of(content, group[0])
        by_name.setdefault(name, {})[tuple(_bare(box.answer) for box in group)] = None
    return BoxedAnswers(
        tuple(_distinct(normalise(box.answer) for box in boxes)),
        max((_num_disagreeing(list(groups)) for groups in by_name.values()), default=0),
    )


def _boxes(content: str, start: int) -> Iterator[_Box]:
    """Yield the innermost non-empty boxes, in order."""
    # One pass and a bounded stack, because a trace caught in a loop may open thousands of boxes.
    opened: deque[tuple[int, int] | None] = deque(maxlen=MAX_OPEN)  # (start, start of the content) of a box
    closed = -1  # start of the last closed box
    for match in _BRACE.finditer(content, start):
        if match["box"]:
            opened.append(match.span())
        elif match[0] == "{":
            opened.append(None)
        elif match[0] == "}" and opened and (span := opened.pop()) is not None and span[0] > closed:
            closed = span[0]
            answer = content[span[1] : match.start()]
            if len(answer) <= MAX_ANSWER_CHARS and _BLANK.sub("", answer).strip():
                yield _Box(span[0], match.end(), answer)


def _side_by_side(content: str, boxes: Sequence[_Box]) -> list[list[_Box]]:
    """Group boxes that are separated by commas, `and` or `or`, and nothing else but formula delimiters."""
    groups = [[boxes[0]]] if boxes else []
    for before, box in pairwise(boxes):
        if (
            _GLUE.fullmatch(content, before.end, max(before.end, box.start))
            and "\n\n" not in content[before.end : box.start]
            # Without a separator the later one is the answer (`distill.grading.boxes.box_groups`).
            and has_separator(content, before.end, max(before.end, box.start))
        ):
            groups[-1].append(box)
        else:
            groups.append([box])
    return groups


def _name_of(content: str, box: _Box) -> str:
    """Return the name of a box: the variable in or before it, or the part that its line starts; empty if unnamed."""
    if inner := _INNER_NAME.fullmatch(normalise(box.answer)):
        return inner[1]
    line = content[max(content.rfind("\n", 0, box.start) + 1, box.start - 400) : box.start]
    if part := _PART.match(line):
        return part[1].casefold()
    if name := _NAME.search(line[-24:]):
        return name[1].casefold()
    return ""


def _bare(answer: str) -> str:
    """Return a normalised answer without the name of its variable."""
    answer = normalise(answer)
    if inner := _INNER_NAME.fullmatch(answer):
        answer = inner[2]
    return answer


def _num_disagreeing(groups: Sequence[Sequence[str]]) -> int:
    """Return the number of distinct answers among the groups; a group contained in another does not count."""
    distinct: list[Sequence[str]] = []
    for group in sorted(groups, key=len, reverse=True):
        if not any(all(any(_agree(answer, other) for other in known) for answer in group) for known in distinct):
            distinct.append(group)
    return len(distinct)


def _agree(one: str, other: str) -> bool:
    return one == other or same_answer(one, other) or same_answer(_UNIT.sub("", one), _UNIT.sub("", other))


def _distinct(answers: Iterator[str]) -> list[str]:
    found: list[str] = []
    for answer in dict.fromkeys(answers):
        if not any(same_answer(answer, other) for other in found):
            found.append(answer)
    return found


REFUSAL_CHARS = 400
"""Characters at the start of a content in which a refusal is looked for."""

_CANNOT = (
    r"(?:can(?:no|['’]?)t|can not|won['’]t|will not|(?:am|['’]m) (?:not able|unable) to"
    r"|(?:am|['’]m) not (?:allowed|permitted) to)"
)
_TO_HELP = (
    r"(?:(?:help(?! but)|assist|comply|continue|do that|do this)\b|(?:answer|provide|solve|fulfil?l|complete|discuss|"
    r"engage|generate|create|give|share|offer|support)\b)"
)
_REFUSAL = re.compile(
    # English, then Spanish, French, German, Italian, Portuguese, Russian, Chinese, Japanese and Korean
    rf"\bI ?{_CANNOT} {_TO_HELP}"
    rf"|\b(?:sorry|apologi[sz]e|afraid|unfortunately)\b[^.!?\n]{{0,60}}\b(?:I|we) ?{_CANNOT}"
    r"|\bas an? (?:AI|artificial intelligence|(?:large )?language model)\b"
    r"|\b(?:decline|refuse|have to refuse) to (?:answer|help|assist|provide)\b"
    r"|\blo siento\b[^.\n]{0,60}\bno puedo\b|\bcomo (?:una? )?(?:IA|modelo de lenguaje|inteligencia artificial)\b"
    r"|\b(?:désolée?|regrette)\b[^.\n]{0,60}\bne (?:peux|puis)\b|\ben tant qu(?:e modèle|['’](?:IA|intelligence))"
    r"|\b(?:leider|entschuldigung|tut mir leid)\b[^.\n]{0,60}\bkann\b[^.\n]{0,60}\bnicht\b|\bals (?:KI|sprachmodell)\b"
    r"|\bmi dispiace\b[^.\n]{0,60}\bnon posso\b|\b(?:desculpe|sinto muito|lamento)\b[^.\n]{0,60}\bnão posso\b"
    r"|\b(?:извините|простите|к сожалению)\b[^.\n]{0,60}\bне (?:могу|можу)\b|\bкак (?:ИИ|языковая модель)\b"
    r"|(?:抱歉|对不起|很遗憾|對不起)[^。\n]{0,40}(?:不能|无法|無法)|作为(?:一个|一名)?(?:AI|人工智能|语言模型)"
    r"|(?:申し訳|すみません)[^。\n]{0,40}(?:できません|できかねます)|(?:죄송|미안)[^.\n]{0,40}(?:없습니다|못)",
    re.IGNORECASE,
)

_HINT = re.compile(
    r"[cwand](?:an(?:no|')?t |an not|on't|ill not|ot (?:able|allowed|permitted)|m unable|ecline|s an? )"
    r"|sorry|apolog|afraid|unfort|am unable|refuse|puedo|como |peux|puis|modele|leid|als |posso"
)
"""Cheap pre-check: every refusal in ASCII matches it."""


def refuses(content: str) -> bool:
    """Return whether a content is a refusal without an answer (a box, or "the answer is …")."""
    head = content[:REFUSAL_CHARS]
    if "\\boxed" in content or (head.isascii() and not _HINT.search(head.lower())):
        return False
    return _REFUSAL.search(head) is not None and extract_answer(content) is None


_FOLD = bytes(
    byte + 32 if 65 <= byte <= 90 else 32 if byte < 48 or 57 < byte < 65 or 90 < byte < 97 or 122 < byte < 128 else byte
    for byte in range(256)
)
"""Byte table: ASCII letters to lower case, other ASCII except digits to spaces, non-ASCII bytes unchanged."""

_NO_SPACES = re.compile(r"([\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\u0e00-\u0e7f])")
"""Letters of scripts without spaces; each counts as a word."""


_Pieces = frozenset[tuple[bytes, ...]]


def prompt_leak(text: str, instructions: Sequence[str], problem: str = "") -> float:
    """Return the largest share of an instruction's 8-word pieces that the text repeats, in [0, 1].

    Args:
        text: the whole trace.
        instructions: the teacher's input besides the problem: the system prompt, each worked example. One with fewer
            than 8 words has no pieces.
        problem: the problem; a trace may repeat it, so its pieces do not count.
    """
    if not instructions:
        return 0.0
    vocabulary, pieces_of_each = _index(tuple(instructions))
    found = _pieces_among(_words(text), vocabulary)
    if not found:
        return 0.0
    own = _pieces(_words(problem))
    counted = [pieces - own for pieces in pieces_of_each]
    return max((len(found & pieces) / len(pieces) for pieces in counted if pieces), default=0.0)


def _words(text: str) -> list[bytes]:
    if not text.isascii():
        text = _NO_SPACES.sub(r" \1 ", text)
    return text.encode("utf-8", "replace").translate(_FOLD).split()


def _pieces(words: Sequence[bytes]) -> _Pieces:
    return frozenset(zip(*(words[start:] for start in range(SHINGLE_WORDS)), strict=False))


@lru_cache(maxsize=64)
def _index(instructions: tuple[str, ...]) -> tuple[dict[bytes, bool], list[_Pieces]]:
    """Return every word of the instructions, and the pieces of each instruction."""
    words_of_each = [_words(instruction) for instruction in instructions]
    return {word: True for words in words_of_each for word in words}, [_pieces(words) for words in words_of_each]


def _pieces_among(words: Sequence[bytes], vocabulary: dict[bytes, bool]) -> set[tuple[bytes, ...]]:
    """Return the text's pieces that consist of the instructions' words alone; no others can match."""
    if len(words) < SHINGLE_WORDS:
        return set()
    # W = words of the text
    known_W: Any = np.fromiter(map(vocabulary.get, words, repeat(False)), dtype=bool, count=len(words))
    total_W = np.concatenate(([0], known_W.cumsum()))
    starts = np.flatnonzero(total_W[SHINGLE_WORDS:] - total_W[:-SHINGLE_WORDS] == SHINGLE_WORDS).tolist()
    return {tuple(words[start : start + SHINGLE_WORDS]) for start in starts}
