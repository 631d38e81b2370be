"""The rewards of stored answers, by the graders of filter and evaluation."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from distill.core.records import Problem
from distill.core.thinking import THINK_CLOSE, THINK_OPEN
from distill.models.tokenizers import Tokenizer
from distill.recipe.rl import RlConfig
from distill.recipe.sandbox import SandboxConfig
from distill.rewards import rollouts as rewarded
from distill.rewards.grader import RolloutGrader
from distill.rewards.parts import is_right
from distill.rewards.rollouts import RolloutFacts
from distill.rewards.scores import Score, group_scores
from distill.training.rl.job import RlJob
from distill.training.rl.rollouts import GAMED, Rollout
from distill.training.rl.teachers import Teaching

GUESS, ECHO = GAMED


class RolloutScorer:
    """Fills in what answers are worth; use it as a context manager. Implements `distill.training.rl.steps.Scorer`."""

    def __init__(
        self,
        job: RlJob,
        config: RlConfig,
        tokenizer: Tokenizer,
        problems: Mapping[str, Problem],
        teaching: Teaching | None = None,
    ) -> None:
        self._problems, self._teaching = problems, teaching
        self._config = config.reward
        self._grader = RolloutGrader(
            config.reward,
            config.max_tokens,
            facts=None if job.facts is None else Path(job.facts),
            sandbox=SandboxConfig.model_validate(job.sandbox),
            special_ids=turn_ids(tokenizer),
            gym_min_score=job.gym_min_score,
        )

    def __enter__(self) -> Self:
        self._grader.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._grader.__exit__(kind, error, trace)

    def score(self, groups: Sequence[Sequence[Rollout]]) -> None:
        """Fill in `reward`, `parts`, `correct`, `reason`, `fault` and `extracted_answer` of each answer."""
        facts = iter(self._grader.facts([self._rewarded(one) for group in groups for one in group]))
        for group in groups:
            of_group = [next(facts) for _ in group]
            for one, fact, score in zip(group, of_group, group_scores(of_group, self._config), strict=True):
                _fill(one, fact, score)
        if self._teaching is not None:
            self._teaching.fill_in([one for group in groups for one in group if one.used and one.is_sampled])

    def _rewarded(self, one: Rollout) -> rewarded.Rollout:
        problem = self._problems[one.problem_id]
        return rewarded.Rollout(problem, one.text, one.finish_reason, one.think_opened, tuple(one.ids))


def _fill(one: Rollout, fact: RolloutFacts, score: Score) -> None:
    one.reward, one.parts = score.total, dict(score.parts)
    by_rule = fact.grade is not None and fact.grade.correct is True
    one.fault = GUESS if fact.is_guess else ECHO if fact.is_echo and by_rule else fact.fault
    one.correct = is_right(fact)
    if fact.grade is not None:
        one.reason, one.extracted_answer = fact.grade.reason or "", fact.grade.extracted_answer


def turn_ids(tokenizer: Tokenizer) -> frozenset[int]:
    """Return the tokens that begin or end a text or a turn: all special ones but the marks of a thought."""
    marks = {tokenizer.convert_tokens_to_ids(mark) for mark in (THINK_OPEN, THINK_CLOSE)}
    return frozenset(set(tokenizer.all_special_ids) - marks)
