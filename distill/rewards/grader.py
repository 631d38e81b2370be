"""Find out the facts of rollouts with the graders of filter and evaluation.

Texts are examined and answers compared in confined processes, programs run in sandboxes, and a judge is asked where no
rule applies.
"""

import contextlib
import functools
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from distill.engines.base import Engine
from distill.errors import StageError
from distill.grading import UNGRADED, Grade, grade_from, grade_slowly
from distill.grading.cached import opened_cache, take_golds
from distill.grading.code.grader import CODE, CodeGrader, backend_of
from distill.grading.gym import FULL_SCORE
from distill.grading.pool import CRASHED, MEMORY_GIB, GradingPool, Outcome, PoolTask, Settled
from distill.recipe.filter import Judge
from distill.recipe.rewards import RewardConfig
from distill.recipe.sandbox import SandboxConfig
from distill.rewards.examination import MAX_RESULTS, Examined, Submission, examine
from distill.rewards.rollouts import Rollout, RolloutFacts, has_rule
from distill.rewards.scores import Score, group_scores
from distill.sampling.judging import Question, ask_judge
from distill.storage.case_files import without_cases
from distill.storage.fact_cache import FactCache


class RolloutGrader:
    """What finds out the facts of rollouts; use it as a context manager, and the same one for all steps.

    Args:
        config: the parts of the reward, which decide what is measured.
        max_tokens: longest completion that is sampled, in tokens.
        judge: asked where no rule applies, if the judge has a weight and no `by` of its own; a recipe's `filter.judge`.
        facts: path of the fact cache, which keeps the judge's verdicts and what problems' own solutions do; `None`:
            they are forgotten at the end.
        sandbox: where programs run; `None`: on this machine.
        special_ids: the tokens that end or begin a turn in the model's chat format. A rollout that holds one before its
            last token is out of form.
        workers: grading processes; `None`: one per core.
        timeout_s: time limit for examining, and for grading, one rollout.
        memory_gib: memory limit of a grading process.
        gym_min_score: minimum score at which a gym answer is right (`filter.gym_min_score`).
        engine: serves the judge; `None`: its servers are connected when they are needed.

    Raises:
        StageError: the judge has a weight, and there is none.
    """

    def __init__(
        self,
        config: RewardConfig,
        max_tokens: int,
        judge: Judge | None = None,
        facts: Path | None = None,
        sandbox: SandboxConfig | None = None,
        special_ids: frozenset[int] = frozenset(),
        workers: int | None = None,
        timeout_s: float = 10.0,
        memory_gib: float = MEMORY_GIB,
        gym_min_score: float = FULL_SCORE,
        engine: Engine | None = None,
    ) -> None:
        self._config, self._max_tokens, self._special_ids = config, max_tokens, special_ids
        self._judge = _judge_of(config, judge)
        self._cache_path, self._engine, self._timeout_s = facts, engine, timeout_s
        self._grade_slowly = functools.partial(grade_slowly, gym_min_score=gym_min_score)
        sandbox = sandbox or SandboxConfig()
        self._pool = GradingPool(workers, timeout_s, memory_gib)
        self._programs = CodeGrader(backend_of(sandbox), sandbox.workers)
        self._open = contextlib.ExitStack()
        self._cache: FactCache | None = None

    def __enter__(self) -> Self:
        if self._cache_path is None:
            self._cache_path = Path(self._open.enter_context(tempfile.TemporaryDirectory())) / "facts.sqlite"
        self._cache = self._open.enter_context(opened_cache(self._cache_path))
        self._open.enter_context(self._pool)
        self._open.enter_context(self._programs)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def scores(self, groups: Sequence[Sequence[Rollout]]) -> list[list[Score]]:
        """Return what each rollout of each group is worth; all groups are graded at once.

        Args:
            groups: the rollouts of one problem each.

        Raises:
            DistillError: see `facts`.
        """
        facts = iter(self.facts([rollout for group in groups for rollout in group]))
        return [group_scores([next(facts) for _ in group], self._config) for group in groups]

    def facts(self, rollouts: Sequence[Rollout]) -> list[RolloutFacts]:
        """Return the facts of rollouts, in order.

        Raises:
            StageError: no worker can be started on this machine.
            ModelError: the judge cannot be reached.
        """
        examined = self._examine(rollouts)
        grades = self._grade(rollouts, examined)
        guesses = self._guesses(rollouts, examined, grades)
        judged = self._ask(rollouts, examined, grades)
        parts = zip(rollouts, examined, grades, guesses, judged, strict=True)
        return [self._facts_of(*one) for one in parts]

    def _examine(self, rollouts: Sequence[Rollout]) -> list[Examined | Outcome]:
        """Examine all texts; an `Outcome` stands for what could not be."""
        # Workers with what the filter measures already imported; like the filter's, they score no answers.
        waiting = iter(
            [
                PoolTask(place, examine, self._submission(rollout), self._timeout_s, reads_files=True)
                for place, rollout in enumerate(rollouts)
            ]
        )
        found: list[Examined | Outcome] = [CRASHED] * len(rollouts)
        for place, outcome in self._pool.run(lambda: next(waiting, None)):
            found[place] = outcome if isinstance(outcome, Examined | Outcome) else CRASHED
        return found

    def _submission(self, rollout: Rollout) -> Submission:
        weights, language = self._config.weights, self._config.language
        return Submission(
            without_cases(rollout.problem),
            rollout.text,
            rollout.finish_reason,
            rollout.think_opened,
            language.language if language is not None and "language" in weights else None,
            "repetition" in weights,
        )

    def _grade(self, rollouts: Sequence[Rollout], examined: Sequence[Examined | Outcome]) -> list[Grade]:
        """Grade all answers: what is not graded yet in workers, programs in sandboxes."""
        take_golds(self._programs, self._cache, [rollout.problem for rollout in rollouts])
        extracted: list[str] = []

        def tasks() -> Iterator[Any]:
            for rollout, one in zip(rollouts, examined, strict=True):
                if isinstance(one, Outcome):
                    yield Settled(Grade(None, None, UNGRADED[one]))
                elif one.grade is not None:
                    yield Settled(one.grade)
                elif rollout.problem.task == CODE:
                    yield Settled(self._programs.submit(rollout.problem, one.extracted))
                else:
                    extracted.append(one.extracted)
                    yield rollout.problem, one.extracted

        waiting = iter(extracted)
        grades: list[Grade] = []
        for outcome in self._pool.map(self._grade_slowly, tasks()):
            if isinstance(outcome, Future):
                grades.append(outcome.result())
            else:
                grades.append(outcome if isinstance(outcome, Grade) else grade_from(outcome, next(waiting)))
        if self._cache is not None and (fresh := self._programs.take_fresh()):
            self._cache.put(fresh)
        return grades

    def _guesses(
        self, rollouts: Sequence[Rollout], examined: Sequence[Examined | Outcome], grades: Sequence[Grade]
    ) -> list[bool]:
        """Return for each rollout whether its answer is right and gives other results that are not."""
        found = [False] * len(rollouts)
        asked: list[tuple[int, str]] = []
        for place, (one, grade) in enumerate(zip(examined, grades, strict=True)):
            if isinstance(one, Examined) and grade.correct is True:
                # Of many results, one is wrong.
                found[place] = len(one.others) > MAX_RESULTS
                asked += [(place, other) for other in one.others if not found[place]]
        tasks = [(rollouts[place].problem, other) for place, other in asked]
        for (place, _), verdict in zip(asked, self._pool.map(self._grade_slowly, tasks), strict=True):
            found[place] |= verdict is not True
        return found

    def _ask(
        self, rollouts: Sequence[Rollout], examined: Sequence[Examined | Outcome], grades: Sequence[Grade]
    ) -> list[bool | None]:
        """Return the judge's verdicts; an answer that is missing or unfinished is wrong, whatever a judge would say."""
        found: list[bool | None] = [None] * len(rollouts)
        questions: list[Question] = []
        for place, (rollout, one, grade) in enumerate(zip(rollouts, examined, grades, strict=True)):
            if has_rule(rollout.problem) or isinstance(one, Outcome) or rollout.finish_reason == "error":
                continue
            if rollout.finish_reason != "stop" or grade.correct is False:
                found[place] = False
            elif self._judge is not None:
                questions.append(Question((rollout.problem.id, place), rollout.problem, one.answer))
        if questions and self._judge is not None and self._cache is not None:
            for (_, place), verdict in ask_judge(questions, self._judge, self._cache, self._engine):
                found[place] = verdict
        return found

    def _facts_of(
        self, rollout: Rollout, examined: Examined | Outcome, grade: Grade, is_guess: bool, judged: bool | None
    ) -> RolloutFacts:
        has_text = isinstance(examined, Examined)
        fault = examined.fault if isinstance(examined, Examined) else "unmeasured"
        if not fault and not self._special_ids.isdisjoint(rollout.token_ids[:-1]):
            fault = "special_token"
        return RolloutFacts(
            task=rollout.problem.task,
            has_rule=has_rule(rollout.problem),
            finish_reason=rollout.finish_reason,
            fault=fault,
            num_tokens=rollout.length,
            max_tokens=self._max_tokens,
            grade=None if rollout.finish_reason == "error" else grade,
            is_guess=is_guess,
            judged=judged,
            token_ids=rollout.token_ids,
            **({name: getattr(examined, name) for name in TOLD} if has_text else {}),
        )


TOLD = ("is_unclosed", "is_echo", "language_share", "is_repetitive")
"""Facts as the examination told them."""


def _judge_of(config: RewardConfig, fallback: Judge | None) -> Judge | None:
    if config.judge is None or "judge" not in config.weights:
        return None
    judge = config.judge.by or fallback
    if judge is None:
        raise StageError(
            "reward.judge has a weight, and there is no judge: say which with reward.judge.by or filter.judge, or "
            "leave it out."
        )
    return judge
