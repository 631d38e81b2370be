r"""lighteval: the rightmost match of the best-ranked pattern, anywhere in the text.

Mathematics goes through math-verify, which is lighteval's extraction and comparison in a package of its own, with
lighteval's settings. Letters are found by the patterns below, which are tried in the order of their rank.
"""

import functools
import re

from distill.core.records import Problem
from distill.grading.harnesses.findings import NOTHING, Finding, Harness, letters_of

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"

BOX_RANK = 55
"""Rank of a box among math-verify's patterns: after "final answer is" (50), before "answer:" (100)."""

DIGITS_COMPARED = 6


def without_thoughts(text: str) -> str:
    """Remove each pair of thinking tags with what stands between; a closing tag alone removes nothing."""
    kept, place = [], 0
    while (start := text.find(THINK_OPEN, place)) >= 0 and (end := text.find(THINK_CLOSE, start)) >= 0:
        kept.append(text[place:start])
        place = end + len(THINK_CLOSE)
    return "".join([*kept, text[place:]])


def find_math(problem: Problem, gold: str, text: str) -> Finding:
    """Extract from the whole text without thoughts, and compare with the boxed expected answer. May hang."""
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

    targets = [ExprExtractionConfig(), LatexExtractionConfig(boxed_match_priority=BOX_RANK)]
    found = parse(without_thoughts(text), extraction_config=targets, parsing_timeout=None)
    if not found:
        return NOTHING
    # Its tasks take the expected answer out of a solution, where it is boxed in a formula.
    expected = parse(f"$\\boxed{{{gold}}}$", extraction_config=targets, parsing_timeout=None)
    is_same = verify(expected or [gold], found, float_rounding=DIGITS_COMPARED, timeout_seconds=None)
    return Finding(str(found[-1]), bool(is_same))


def find_letter(problem: Problem, gold: str, text: str) -> Finding:
    """Extract the letter by the best-ranked pattern that matches, and compare it with the expected one."""
    seen = without_thoughts(text)
    for pattern in _patterns(letters_of(problem)):
        # Of all matches of a rank, the one that ends last counts, and of those the one that starts first.
        last = max(pattern.finditer(seen), key=lambda match: (match.end(), -match.start()), default=None)
        if last is not None:
            letter = last["letter"].strip("()")
            return Finding(letter, letter == gold)
    return NOTHING


@functools.lru_cache(maxsize=32)
def _patterns(letters: str) -> tuple[re.Pattern[str], ...]:
    one = rf"(?P<letter>[{letters}]|\([{letters}]\))"
    closed = rf"(?:\*\*)?{one}(?:\*\*)?(?:[.,: ]|$)"
    alone = rf"(?:^| ){closed}"
    ranks = (
        rf"(?i:final answer is):?\s*{one}\.?\s?I hope",
        rf"(?i:final answer.{{0,100}}?)\s+is:?\s*{one}",  # no end: "is Apple" is A
        rf"(?i:answer):.{{0,50}}?{alone}",
        rf"(?i:answer).{{0,50}}?{alone}",
        rf"^{closed}",
        rf"\n{closed}",
        alone,
        one,
    )
    return tuple(re.compile(rank) for rank in ranks)


LIGHTEVAL = Harness(
    name="lighteval",
    sources=(
        "huggingface/lighteval@031e09c src/lighteval/metrics/utils/extractive_match_utils.py",
        "huggingface/lighteval@01a0033 src/lighteval/tasks/tasks/math_500.py (pass_at_k_math)",
        "huggingface/lighteval@079ceaf src/lighteval/tasks/tasks/gpqa.py (gpqa_instruct_pass_at_k)",
        "huggingface/lighteval@6c23c99 src/lighteval/tasks/tasks/mmlu_pro.py (gpqa_instruct_metric)",
        "huggingface/lighteval@03a42e8 src/lighteval/utils/utils.py (remove_reasoning_tags, the default since #925)",
    ),
    sees_thought=False,
    rules={"math": find_math, "numeric": find_math, "choice": find_letter},
    notes=(
        "It removes <think>…</think> pairs. A thought whose opening tag is in the prompt stays in the text.",
        "Mathematics is extracted and compared by the installed math-verify, the package that continues its own code.",
        "Its limit of 5 seconds counts as wrong; here an answer that takes too long is not graded.",
        "Without an announced letter it takes any letter of an option, even the A of a word.",
        "Its MMLU compares log-probabilities, which stored answers do not have; GPQA's rule is applied.",
    ),
)
