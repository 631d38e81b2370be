r"""NeMo-Skills: the last box, compared by math-verify after a normalisation; letters by the box, then by "Answer:"."""

import re
from collections import deque

from distill.core.records import Problem
from distill.grading.harnesses.findings import NOTHING, Finding, Harness, last_braced_box

LETTERS = tuple("ABCDEFGHIJ")

_PERCENT = re.compile(r"(\d+\.?\d*)(?:\\%|%)")
_WORDS = re.compile(r"[a-zA-Z ,]+")
_IN_MATH_MODE = re.compile(r"\$.*\$|\\\(.*\\\)|\\\[.*\\\]|\\boxed\{", re.DOTALL)
_FINAL = "The final answer is "
_LONE_CAPITAL = re.compile(r"\b[A-Z]\b")
_ANSWER_LETTER = re.compile(r"(?i)[*_]{0,2}answer[*_]{0,2}\s*+:[\s*_]{0,2}\s*+([A-Z])(?![a-zA-Z0-9])")
_OTHER_SCRIPTS = str.maketrans(
    dict(
        zip(
            "\u0623\u0628\u062c\u062f\u0985\u09ac\u09a1\u09a2\uff21\uff22\uff23\uff24",
            [" A", " B", " C", " D"] * 3,
            strict=True,
        )
    )
)
"""Letters for A to D in Arabic, Bengali and full width."""


def find_math(problem: Problem, gold: str, text: str) -> Finding:
    """Take the last box and compare it with the expected answer. May hang."""
    box = last_braced_box(text)
    return NOTHING if box is None else Finding(box, same_value(gold, box))


def same_value(gold: str, given: str) -> bool:
    """Compare by letter, as normalised text, then by math-verify. May hang."""
    from latex2sympy2_extended import NormalizationConfig, normalize_latex  # type: ignore[import-untyped]
    from math_verify import LatexExtractionConfig, StringExtractionConfig, parse, verify

    def parsed(answer: str, target: object) -> object:
        return parse(answer, extraction_config=[target], parsing_timeout=None)

    if gold.strip() in LETTERS:
        as_letter = StringExtractionConfig(strings=LETTERS)
        if verify(parsed(gold, as_letter), parsed(given, as_letter), timeout_seconds=None):
            return True
    gold, given = _trimmed(gold), _trimmed(given)
    plain = [normalize_latex(answer, NormalizationConfig()) for answer in (gold, given)]
    if plain[0].replace(" ", "") == plain[1].replace(" ", ""):
        return True
    if all(_WORDS.fullmatch(answer) for answer in plain):
        return False
    expected, found = (parsed(_in_math_mode(answer), LatexExtractionConfig()) for answer in (gold, given))
    return bool(verify(expected, found, numeric_precision=15, timeout_seconds=None))


def _trimmed(answer: str) -> str:
    """Drop the sign of percent, and a final point or backslash."""
    percent = _PERCENT.fullmatch(answer)
    return (percent[1] if percent else answer).rstrip(".\\")


def _in_math_mode(answer: str) -> str:
    return answer if _IN_MATH_MODE.search(answer) else f"${answer}$"


def find_letter(problem: Problem, gold: str, text: str) -> Finding:
    """Take the letter of the last box, else of "The final answer is" at the end, else after the last "Answer:"."""
    stated = last_braced_box(text) or _final_answer(text)
    letter = None if stated is None else _letter_of(stated.translate(_OTHER_SCRIPTS).strip())
    if letter is None and (after := deque(_ANSWER_LETTER.finditer(text), maxlen=1)):
        letter = after[0][1].upper()
    return NOTHING if letter is None else Finding(letter, letter == gold)


def _final_answer(text: str) -> str | None:
    """Return what follows the first "The final answer is" of the last line."""
    line = text.removesuffix("\n")
    line = line[line.rfind("\n") + 1 :]
    return line.partition(_FINAL)[2] or None


def _letter_of(stated: str) -> str | None:
    if len(stated) == 1:
        return stated.upper()
    capitals = deque(_LONE_CAPITAL.finditer(stated), maxlen=1)
    return capitals[0][0] if capitals else None


NEMO_SKILLS = Harness(
    name="nemo-skills",
    sources=(
        "NVIDIA-NeMo/Skills@a42e286 nemo_skills/evaluation/math_grader.py",
        "NVIDIA-NeMo/Skills@511d678 nemo_skills/evaluation/evaluator/math.py, mcq.py",
    ),
    sees_thought=True,
    rules={"math": find_math, "numeric": find_math, "choice": find_letter},
    notes=(
        "It grades everything that the model wrote, unless parse_reasoning is set, which it is not by default.",
        "Only a box counts for mathematics; an earlier box is not tried if the last one is damaged.",
        "Values are compared by the installed math-verify and latex2sympy2-extended.",
        "Its limit of 10 seconds counts as wrong; here an answer that takes too long is not graded.",
        "A single character in a box is the answer, whether or not it is the letter of an option.",
    ),
)
