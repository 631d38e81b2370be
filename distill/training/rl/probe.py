"""Held-out problems that the policy answers while it is trained, always with the same seeds."""

from collections.abc import Mapping, Sequence
from typing import Any

from distill.core.records import Problem
from distill.recipe.rl import Probe
from distill.recipe.sampling import Sampling
from distill.results.rl import ProbePoint
from distill.scores.intervals import mean_interval, mean_score
from distill.training.rl.rollouts import Rollout, RolloutFiles, rollout_seed
from distill.training.rl.sampling import Sampler
from distill.training.rl.steps import PROBE, Scorer, World


class ProbeSet:
    """The held-out problems of one process, and how they are answered.

    Args:
        config: `rl.probe` of the recipe.
        problems: held out, by id; the first `config.problems` are asked.
        seed: the recipe's.
        max_tokens: longest answer.
        sampler: draws answers.
        scorer: grades them.
        files: keeps them.
        world: the processes that share the problems.
    """

    def __init__(
        self,
        config: Probe,
        problems: Mapping[str, Problem],
        seed: int,
        max_tokens: int,
        sampler: Sampler,
        scorer: Scorer,
        files: RolloutFiles,
        world: World,
    ) -> None:
        self._config, self._seed, self._sampler, self._scorer = config, seed, sampler, scorer
        self._files, self._world = files, world
        self._ids = list(problems)[: config.problems]
        self._sampling = Sampling(temperature=config.temperature, top_p=1.0, max_tokens=max_tokens)

    def measure(self, step: int, policy: str) -> ProbePoint:
        """Answer the problems, or read the answers of this policy back.

        Args:
            step: updates of the weights so far.
            policy: hash of the weights, which the engine holds.
        """
        stored = self._files.read(PROBE, step, policy)
        if stored is None:
            stored = self._draw(step, policy)
            self._files.write(PROBE, step, stored)
        return point_of(step, self._world.gather(stored))

    def _draw(self, step: int, policy: str) -> list[Rollout]:
        groups = [
            [self._wanted(step, number, name, index, policy) for index in range(self._config.samples_per_problem)]
            for number, name in enumerate(self._ids)
            if number % self._world.size == self._world.rank
        ]
        self._sampler.draw([one for group in groups for one in group], self._sampling, lambda one: None)
        self._scorer.score(groups)
        return [one for group in groups for one in group]

    def _wanted(self, step: int, number: int, name: str, index: int, policy: str) -> Rollout:
        # The same seeds at every step: what differs is the policy.
        seed = rollout_seed(self._seed, -1, name, index)
        return Rollout(step, number, 0, number, name, index, seed, policy, used=False)


def point_of(step: int, answers: Sequence[Rollout]) -> ProbePoint:
    """Return the scores of answers to the held-out problems."""
    by_problem: dict[str, list[float]] = {}
    for one in answers:
        if one.correct is not None:
            by_problem.setdefault(one.problem_id, []).append(float(one.correct))
    scores = list(by_problem.values())
    low, high = mean_interval(scores) if scores else (None, None)
    return ProbePoint(
        step=step,
        num_problems=len({one.problem_id for one in answers}),
        num_answers=len(answers),
        num_right=sum(one.correct is True for one in answers),
        num_ungraded=sum(one.correct is None for one in answers),
        pass_at_1=mean_score(scores) if scores else None,
        low=low,
        high=high,
        mean_tokens=sum(len(one.ids) for one in answers) / max(1, len(answers)),
        truncated=sum(one.finish_reason == "length" for one in answers) / max(1, len(answers)),
    )


def is_better(point: ProbePoint, best: Mapping[str, Any] | None) -> bool:
    """Return whether a measurement is better than the best so far; the later of two equal ones is not."""
    if point.pass_at_1 is None:
        return False
    return best is None or best["pass_at_1"] is None or point.pass_at_1 > best["pass_at_1"]
