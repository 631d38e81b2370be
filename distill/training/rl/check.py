"""Answers of the untrained student to a few problems, and what they say of the training (`distill rl --check`)."""

import statistics
import time
from typing import Any, Protocol

from distill.recipe.rl import RlConfig
from distill.training.rl.rollouts import Rollout, rollout_seed
from distill.training.rl.sampling import Sampler
from distill.training.rl.steps import Scorer, Steps, facts_of_step, has_variance

NUM_PROBLEMS = 8
NUM_EXAMPLES = 3


class Checked(Protocol):
    """What a check needs of a training, which is `distill.training.rl.run.PolicyRun`."""

    config: RlConfig
    seed: int
    steps: Steps
    sampler: Sampler
    scorer: Scorer
    trainer: Any
    """`distill.training.rl.trainer.PolicyTrainer`."""

    def sync(self) -> str:
        """Bring the weights into the engine, and return their hash."""


def check(run: Checked) -> dict[str, Any]:
    """Sample and score groups for a few problems, time the gradients of one, and change nothing.

    Returns:
        num_problems, num_answers, parts (mean of each), mean_reward, groups_with_variance (share), right, truncated
        (shares; `None`: unknown), mean_tokens, tokens_per_second, seconds_per_step, hours (of all steps), examples.
    """
    config, policy = run.config, run.sync()
    draws = run.steps.order.take(min(NUM_PROBLEMS, config.prompts_per_step))
    groups = [
        [
            Rollout(0, slot, 0, draw.number, draw.problem_id, index, _seed(run, draw.problem_id, index), policy)
            for index in range(config.group_size)
        ]
        for slot, draw in enumerate(draws)
    ]
    began = time.monotonic()
    run.sampler.draw([one for group in groups for one in group], run.steps.sampling, lambda one: None)
    sampled = time.monotonic()
    run.scorer.score(groups)
    scored = time.monotonic()
    answers = [one for group in groups for one in group]
    learnt = run.trainer.seconds_to_learn(next(filter(has_variance, groups), groups[0]))
    facts = facts_of_step(answers, config.group_size)
    share = config.prompts_per_step / len(groups)
    # Each process learns from its share of the groups, one after the other.
    of_processes = max(1, run.trainer.accelerator.num_processes)
    seconds = ((scored - began) * share + learnt * config.prompts_per_step) / of_processes
    parts = {name.removeprefix("reward_"): value for name, value in facts.items() if _is_part(name)}
    return {
        "num_problems": len(groups),
        "num_answers": len(answers),
        "parts": parts,
        "mean_reward": facts.get("reward"),
        "groups_with_variance": 1.0 - facts["no_variance"],
        "right": facts.get("right"),
        "truncated": facts["truncated"],
        "mean_tokens": facts["tokens_mean"],
        "tokens_per_second": sum(len(one.ids) for one in answers) / max(1e-9, sampled - began),
        "seconds_per_step": seconds,
        "hours": seconds * config.steps / 3600,
        "examples": [
            {"problem_id": one.problem_id, "text": one.text, "reward": one.reward, "correct": one.correct}
            for one in _varied(answers)
        ],
    }


def _seed(run: Checked, problem_id: str, index: int) -> int:
    return rollout_seed(run.seed, 0, problem_id, index)


def _is_part(name: str) -> bool:
    return name.startswith("reward_") and name != "reward_std"


def _varied(answers: list[Rollout]) -> list[Rollout]:
    """Return the best, a middling and the worst answer."""
    graded = sorted((one for one in answers if one.reward is not None), key=lambda one: -(one.reward or 0.0))
    if not graded:
        return answers[:NUM_EXAMPLES]
    places = sorted({round(statistics.fmean((0, len(graded) - 1)) * number) for number in range(NUM_EXAMPLES)})
    return [graded[place] for place in places]
