r"""evalchemy: the last box by the rules of Hendrycks' MATH, compared as normalised strings; the last lone letter.

Nothing is evaluated: `\frac{1}{2}` is right for `0.5` only because that one decimal is in the rules.
"""

import re
from collections import deque

from distill.core.records import Problem
from distill.grading.harnesses.findings import NOTHING, Finding, Harness, last_braced_box, letters_of

_SPACED_BOX = "\\boxed "
_REMOVED = ("^{\\circ}", "^\\circ", "\\$")


def find_math(problem: Problem, gold: str, text: str) -> Finding:
    """Take the last box and compare it with the expected answer as normalised strings."""
    box = last_box(text)
    return NOTHING if box is None else Finding(box, same_strings(gold, box))


def last_box(text: str) -> str | None:
    r"""Return the content of the last box; where `\boxed ` with a space occurs, what follows it up to a dollar sign."""
    spaced = text.rfind(_SPACED_BOX)
    if spaced >= 0:
        return text[spaced + len(_SPACED_BOX) :].partition("$")[0]
    return last_braced_box(text)


def same_strings(one: str, other: str) -> bool:
    """Return whether two answers are the same string after normalisation, or before it if either cannot be."""
    try:
        return normalise(one) == normalise(other)
    except ValueError:
        return one == other


def normalise(answer: str) -> str:
    """Rewrite an answer by the rules of Hendrycks' MATH.

    Raises:
        ValueError: a rule does not apply, as that for `a/b` where a or b is no integer.
    """
    answer = answer.replace("\n", "").replace("\\!", "").replace("\\\\", "\\")
    answer = answer.replace("tfrac", "frac").replace("dfrac", "frac").replace("\\left", "").replace("\\right", "")
    for removed in _REMOVED:
        answer = answer.replace(removed, "")
    answer = _without_unit(answer).replace("\\%", "").replace(" .", " 0.").replace("{.", "{0.")
    if not answer:
        return answer
    if answer.startswith("."):
        answer = f"0{answer}"
    if answer.count("=") == 1 and answer.index("=") <= 2:
        answer = answer.partition("=")[2]
    answer = _braced_fractions(_braced_roots(answer).replace(" ", ""))
    if answer == "0.5":
        return "\\frac{1}{2}"
    return _slash_as_fraction(answer)


def _without_unit(answer: str) -> str:
    before, *rest = answer.split("\\text{ ")
    if len(rest) > 1:
        raise ValueError(answer)
    return before


def _braced_roots(answer: str) -> str:
    if answer.endswith("\\sqrt") or "\\sqrt\\sqrt" in answer:
        raise ValueError(answer)
    return re.sub(r"\\sqrt([^{])", r"\\sqrt{\1}", answer)


def _braced_fractions(answer: str) -> str:
    r"""Rewrite `\frac12` and `\frac1{72}` with braces; an answer with a fraction of one character stays as it is."""
    head, *chunks = answer.split("\\frac")
    written = [head]
    for chunk in chunks:
        if not chunk:
            raise ValueError(answer)
        if chunk[0] == "{":
            written.append(f"\\frac{chunk}")
        elif len(chunk) < 2:
            return answer
        else:
            below = chunk[1:] if chunk[1] == "{" else f"{{{chunk[1]}}}{chunk[2:]}"
            written.append(f"\\frac{{{chunk[0]}}}{below}")
    return "".join(written)


def _slash_as_fraction(answer: str) -> str:
    if answer.count("/") != 1:
        return answer
    above, _, below = answer.partition("/")
    top, bottom = int(above), int(below)  # the harness does not expect the error either
    return f"\\frac{{{top}}}{{{bottom}}}" if answer == f"{top}/{bottom}" else answer


def find_letter(problem: Problem, gold: str, text: str) -> Finding:
    """Take the last letter of an option that stands alone in the text in capitals: the word "a" counts as A."""
    found = deque(re.finditer(rf"\b[{letters_of(problem)}]\b", text.upper()), maxlen=1)
    return Finding(found[0][0], found[0][0] == gold) if found else NOTHING


EVALCHEMY = Harness(
    name="evalchemy",
    sources=(
        "mlfoundations/evalchemy@181a8ef eval/chat_benchmarks/AIME24/eval_instruct.py",
        "mlfoundations/evalchemy@15b9b11 eval/chat_benchmarks/GPQADiamond/eval_instruct.py",
        "copies of its testing_utils.py (get_multiple_choice_answer), which was not at hand itself",
        "EleutherAI/lm-evaluation-harness@04bc51f lm_eval/tasks/hendrycks_math/utils.py",
    ),
    sees_thought=True,
    rules={"math": find_math, "numeric": find_math, "choice": find_letter},
    notes=(
        "It grades everything that the model wrote: a box or letter in the thought counts if none follows.",
        "Answers are compared as strings: equal values in other forms are wrong.",
        "Its MATH-500 tries other patterns where nothing is boxed (since 08c0c1a): not applied, AIME's rule is.",
        "Its GSM8K takes the line after '####' before a box: not applied, AIME's rule is.",
        "Its letters A to D are extended to as many as the problem has options.",
        "The article 'a' counts as the letter A, since it reads the text in capitals.",
    ),
)
