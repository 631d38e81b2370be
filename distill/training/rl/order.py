"""Which problems a step asks: a seeded order over all passes, without those that are too easy or too hard."""

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from distill.errors import RecipeError
from distill.recipe.rl import Difficulty

Solved = Mapping[str, tuple[int, int]]
"""Problem id -> (right answers, graded answers)."""


def refuse_empty_band(problems: Iterable[str], rates: Solved, difficulty: Difficulty) -> None:
    """Raise if every problem is solved too often or too seldom.

    Raises:
        RecipeError: that is so.
    """
    if any(_is_within(difficulty, *rates.get(one, (0, 0))) for one in problems):
        return
    raise RecipeError(
        f"rl.difficulty: no problem is left whose share of right answers is between {difficulty.low:g} and "
        f"{difficulty.high:g}: all are solved too often or too seldom for their groups to teach anything. Widen "
        "rl.difficulty, or choose easier or harder problems."
    )


def _is_within(difficulty: Difficulty, right: int, graded: int) -> bool:
    """Return whether a problem's rate of right answers is within the band, or not known well enough."""
    return graded < difficulty.min_samples or difficulty.low <= right / graded <= difficulty.high


class Draw(NamedTuple):
    """One problem in the order of all passes."""

    number: int
    """Its place, counted over all passes; places of problems that are skipped count too."""
    problem_id: str


@dataclass
class ProblemOrder:
    """An endless order of problems: pass after pass, each in an order of its own.

    It depends on the seed and on the rates at which problems were solved before, so it is the same after a resume that
    restores `position` and `rates`.
    """

    problems: Sequence[str]
    """Ids, in the order of the recipe."""
    seed: int
    difficulty: Difficulty
    rates: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Problem id -> (right answers, graded answers)."""
    position: int = 0
    """Number of the next draw."""

    def __post_init__(self) -> None:
        self._pass: tuple[int, list[str]] = (-1, [])

    def take(self, num: int) -> list[Draw]:
        """Return the next problems whose rate of right answers is within the band, or not known well enough.

        Raises:
            RecipeError: no problem is.
        """
        refuse_empty_band(self.problems, self.rates, self.difficulty)
        found: list[Draw] = []
        while len(found) < num:
            draw = Draw(self.position, self._at(self.position))
            self.position += 1
            if _is_within(self.difficulty, *self.rates.get(draw.problem_id, (0, 0))):
                found.append(draw)
        return found

    def record(self, solved: Iterable[tuple[str, int, int]]) -> None:
        """Add (problem id, right answers, graded answers) to the rates."""
        for problem_id, right, graded in solved:
            before = self.rates.get(problem_id, (0, 0))
            self.rates[problem_id] = (before[0] + right, before[1] + graded)

    def _at(self, number: int) -> str:
        in_pass, place = divmod(number, len(self.problems))
        if self._pass[0] != in_pass:
            order = list(self.problems)
            random.Random(f"{self.seed}/{in_pass}").shuffle(order)
            self._pass = in_pass, order
        return self._pass[1][place]
