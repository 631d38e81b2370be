"""SimpleQA's figures, from grades of short answers (Wei et al. 2024, arXiv:2411.04368, section 2.3).

{"q1": ["correct"], "q2": ["not_attempted"]}  ->  correct 0.5, correct_given_attempted 1.0, f_score 0.67, …
"""

from collections.abc import Mapping, Sequence

from distill.grading.comparisons import ShortAnswer
from distill.results.eval import Figure
from distill.scores.shares import pooled_share

_F_SCORE: Mapping[ShortAnswer | None, Sequence[float | None]] = {
    "correct": [1.0, 1.0],
    "incorrect": [0.0, 0.0],
    "not_attempted": [0.0],
    None: [None, None],
}
"""The harmonic mean of c/n and c/a is 2c / (n + a): a share of answers and attempts, in which a correct answer is right
twice. A missing verdict moves it most as a correct or as an incorrect one."""


def short_answer_figures(grades: Mapping[str, Sequence[ShortAnswer | None]]) -> dict[str, Figure]:
    """Return SimpleQA's figures that can be told; without a verdict, none.

    Args:
        grades: question -> the grade of each answer to it; `None`: no answer, or no verdict on it.

    Returns:
        `correct`, `incorrect`, `not_attempted`: shares of the judged answers; `correct_given_attempted`: share of
        correct answers among correct and incorrect ones; `f_score`: the harmonic mean of the first and the last.
    """
    kinds: tuple[ShortAnswer, ...] = ("correct", "incorrect", "not_attempted")
    outcomes: dict[str, dict[str, list[float | None]]] = {
        kind: {name: [_is(one, kind) for one in several] for name, several in grades.items()} for kind in kinds
    }
    outcomes["correct_given_attempted"] = {
        name: [_is(one, "correct") for one in several if one != "not_attempted"] for name, several in grades.items()
    }
    outcomes["f_score"] = {name: [x for one in several for x in _F_SCORE[one]] for name, several in grades.items()}
    found = {key: pooled_share(of_key) for key, of_key in outcomes.items()}
    return {key: figure for key, figure in found.items() if figure is not None}


def _is(grade: ShortAnswer | None, kind: ShortAnswer) -> float | None:
    return None if grade is None else float(grade == kind)
