"""simple-evals: what follows the first "Answer:", wherever it stands.

Its MATH asks a language model whether two expressions are equal. There is none here: distill's own comparison decides,
and the notes say so.
"""

import re

from distill.core.records import Problem
from distill.grading.harnesses.findings import NOTHING, Finding, Harness, first_answer_line, letters_of
from distill.grading.harnesses.places import same_value, stated_after_answer

_MARKS = re.compile(r"\*\*|\$\\boxed\{|\}\$|\\\$|\$\\text\{|\$|\\mathrm\{|\\\{|\\text|\\\(|\\mathbf\{|\{|\\boxed")
"""Marks of Markdown and LaTeX that the rule for MMLU deletes before it looks for "Answer:"."""


def find_math(problem: Problem, gold: str, text: str) -> Finding:
    """Take the rest of the line after the first "Answer:" and compare it by distill's rules. May hang."""
    line = first_answer_line(text)
    return NOTHING if line is None else Finding(line.strip(), same_value(problem, stated_after_answer(line)))


def find_letter(problem: Problem, gold: str, text: str) -> Finding:
    """Take the letter after the first "Answer:"; by MMLU's rule if the problem is of a source named so."""
    is_mmlu = "mmlu" in problem.source.casefold()
    seen = _MARKS.sub("", text) if is_mmlu else text
    blank = r"\s*+:[ \t]*+" if is_mmlu else r"[ \t]*+:[ \t]*+\$?"
    found = re.search(rf"(?i)answer{blank}([{letters_of(problem)}])", seen)
    # As written: a small letter is extracted, and equals no expected one.
    return Finding(found[1], found[1] == gold) if found else NOTHING


SIMPLE_EVALS = Harness(
    name="simple-evals",
    sources=(
        "openai/simple-evals@0637982 math_eval.py",
        "openai/simple-evals@01ac108 common.py (ANSWER_PATTERN_MULTICHOICE, normalize_response)",
        "openai/simple-evals@0ac027d gpqa_eval.py",
    ),
    sees_thought=True,
    rules={"math": find_math, "numeric": find_math, "choice": find_letter},
    notes=(
        "It searches everything that the server returns: a thought too, unless the server removed it.",
        "Its MATH asks a language model whether two expressions are equal; here distill's comparison decides.",
        "It has no MMLU-Pro: its letters A to D are extended to as many as the problem has options.",
        "A small letter after 'Answer:' counts as wrong.",
        "Its MMLU also knows the word for answer in other languages, and letters of other scripts: not applied.",
    ),
)
