"""Rollouts and what is known of them.

Rollout(problem, "So 2 + 2 = 4.</think>\\n\\\\boxed{4}", "stop", think_opened=True, token_ids=(4416, 220, …))
"""

from collections.abc import Sequence
from dataclasses import dataclass

from distill.core.records import FinishReason, Problem
from distill.grading import GRADERS, Grade
from distill.grading.code.grader import CODE

RULED = frozenset({*GRADERS, CODE})
"""Tasks that a rule grades; what is of another task is for a judge."""

WITHOUT_GOLD = frozenset({"gym", "instructions"})
"""Tasks whose rules need no expected answer."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """One finished completion of a model in training."""

    problem: Problem
    text: str
    """The completion, verbatim: it may hold marks, whatever the model writes."""
    finish_reason: FinishReason
    think_opened: bool = False
    """Whether the rendered prompt ends in `<think>` (`distill.core.thinking.opens_thinking`), so that the text begins
    inside the thought."""
    token_ids: Sequence[int] = ()
    """The completion's tokens without padding; empty: not known."""
    num_tokens: int | None = None
    """Number of them, where they are not known themselves."""

    @property
    def length(self) -> int:
        """Return the completion's length in tokens."""
        return len(self.token_ids) if self.num_tokens is None else self.num_tokens


@dataclass(frozen=True, slots=True)
class RolloutFacts:
    """What is known of one rollout: all that its reward depends on."""

    task: str
    has_rule: bool
    """Whether a rule can grade the problem (`has_rule`)."""
    finish_reason: FinishReason
    fault: str
    """What is wrong with the form (`distill.rewards.form.FAULTS`); empty if nothing is."""
    num_tokens: int
    max_tokens: int
    """Longest completion that was sampled."""
    grade: Grade | None
    """Of the answer after the thought; `None`: the engine failed."""
    is_unclosed: bool = False
    """A thought was opened and never closed, so that there is no answer."""
    is_guess: bool = False
    """The answer marks several results, and not all of them are right."""
    is_echo: bool = False
    """The answer is a calculation that the question asks for, left undone."""
    judged: bool | None = None
    """A judge's verdict, where no rule applies; `None`: none was given, or asked for."""
    language_share: float | None = None
    """Share of the thought's words in the target language; `None`: not measured, or it has no words."""
    is_repetitive: bool | None = None
    """Whether the filter calls the text repetitive; `None`: not measured."""
    token_ids: Sequence[int] = ()


def has_rule(problem: Problem) -> bool:
    """Return whether a rule can grade answers to a problem; else a judge may.

    This depends on the problem alone. An answer that a rule fails on, perhaps on purpose, never comes before a judge.
    """
    if problem.task not in RULED:
        return False
    if problem.task == CODE:
        return problem.tests is not None
    return problem.task in WITHOUT_GOLD or bool(problem.answer and problem.answer.strip())
