"""The parts of a reward: functions of a rollout's facts, each with its source. `PARTS` is the table.

A part's value is `None` if it cannot be known, or does not apply. It never depends on a weight.
"""

import math
from array import array
from collections.abc import Callable, Sequence

from distill.grading.code.grader import CODE
from distill.grading.code.verdicts import TESTS_PASSED, share_passed
from distill.recipe.rewards import CosinePart, OverlongPart, RepetitionPart, RewardConfig
from distill.rewards.rollouts import RolloutFacts

DEFAULT_BUFFER_SHARE = 5
"""The penalty for length begins a fifth before the limit, as in DAPO: 4,096 of 20,480 tokens (section 4.1)."""


def is_right(facts: RolloutFacts) -> bool | None:
    """Return whether the answer is right, by rule or, where none applies, by the judge; `None`: nobody can tell."""
    if facts.finish_reason == "error":
        return None
    told = accuracy(facts) if facts.has_rule else judge(facts)
    return None if told is None else told == 1.0


def accuracy(facts: RolloutFacts) -> float | None:
    """Return 1.0 for an answer that the task's rule calls right, else 0.0; `None` if it could not be graded.

    Without a closed thought there is no answer. Several results of which one is wrong are a guess, and the question's
    own calculation is no result of it.
    """
    if facts.finish_reason == "error":
        return None
    if facts.is_unclosed or (facts.has_rule and (facts.is_guess or facts.is_echo)):
        return 0.0
    return None if facts.grade is None or facts.grade.correct is None else float(facts.grade.correct)


def form(facts: RolloutFacts) -> float | None:
    """Return 1.0 for a rollout of the right form, else 0.0 (`distill.rewards.form`)."""
    return None if facts.finish_reason == "error" or facts.fault == "unmeasured" else float(not facts.fault)


def language(facts: RolloutFacts) -> float | None:
    """Return the share of target-language words in the thought; `None` for a thought without words.

    DeepSeek-R1, arXiv:2501.12948, section 2.3.2.
    """
    return facts.language_share


def overlong(facts: RolloutFacts, config: OverlongPart) -> float:
    """Return the penalty for length, 0 to -1 (DAPO, arXiv:2503.14476, equation 13).

    With L tokens at most and c before them over which it grows: 0 up to L - c, ((L - c) - length) / c up to L, then -1.
    """
    limit = config.max_tokens or facts.max_tokens
    buffer = min(config.buffer_tokens or max(1, limit // DEFAULT_BUFFER_SHARE), limit)
    return min(0.0, max(-1.0, (limit - buffer - facts.num_tokens) / buffer))


def cosine(facts: RolloutFacts, config: CosinePart) -> float | None:
    """Return a value along a cosine of the length (arXiv:2502.03373, section 4.2).

    It goes from `*_short` without tokens to `*_long` at the limit, and is `exceeded` there.
    """
    right = is_right(facts)
    if right is None:
        return None
    limit = config.max_tokens or facts.max_tokens
    if facts.num_tokens >= limit:
        return config.exceeded
    short, long = (config.right_short, config.right_long) if right else (config.wrong_short, config.wrong_long)
    return long + 0.5 * (short - long) * (1 + math.cos(math.pi * facts.num_tokens / limit))


def repetition(facts: RolloutFacts, config: RepetitionPart) -> float | None:
    """Return the penalty for repetition, 0 to -1, by n-grams of tokens or as the filter tells it, whichever is larger.

    After arXiv:2502.03373, algorithm 1, which takes a constant from each token of a repeated n-gram; a rollout has one
    reward, so that the share of such n-grams stands for it.
    """
    told: list[float] = []
    if config.measure != "filter" and facts.token_ids:
        told.append(repeated_share(facts.token_ids, config.ngram_tokens))
    if config.measure != "ngrams" and facts.is_repetitive is not None:
        told.append(float(facts.is_repetitive))
    return 0.0 - max(told) if told else None


def repeated_share(token_ids: Sequence[int], num: int) -> float:
    """Return the share of a text's n-grams that occurred before, in [0, 1]; 0.0 for a text without any."""
    ids = array("q", token_ids)
    total = len(ids) - num + 1
    if total < 1:
        return 0.0
    raw, size = ids.tobytes(), ids.itemsize
    return 1.0 - len({raw[start * size : (start + num) * size] for start in range(total)}) / total


def judge(facts: RolloutFacts) -> float | None:
    """Return the judge's verdict, 1.0 or 0.0; `None` if it gave none, or a rule applies."""
    if facts.has_rule or facts.finish_reason == "error":
        return None
    if facts.is_unclosed:
        return 0.0
    return None if facts.judged is None else float(facts.judged)


def code(facts: RolloutFacts) -> float | None:
    """Return the share of tests that a program passes; `None` for other tasks, and where it could not be run."""
    if facts.task != CODE or facts.finish_reason == "error":
        return None
    if facts.is_unclosed:
        return 0.0
    if facts.grade is None or facts.grade.correct is None:
        return None
    said = facts.grade.details.get(TESTS_PASSED)
    passed = None if said is None else share_passed(said)
    return float(facts.grade.correct) if passed is None else passed  # without a program, no test was run


def group_lengths(facts: Sequence[RolloutFacts]) -> list[float | None]:
    """Return the value of each rollout's length within its group (Kimi k1.5, arXiv:2501.12599, section 2.3.3).

    0.5 - (length - shortest) / (longest - shortest) if it is right; if wrong, that or 0, whichever is less; 0 for all
    if all are equally long. `None` for a rollout that cannot be graded, which is not counted.
    """
    lengths = [one.num_tokens for one in facts if is_right(one) is not None]
    shortest, longest = min(lengths, default=0), max(lengths, default=0)
    return [_of_length(one, shortest, longest) for one in facts]


def _of_length(facts: RolloutFacts, shortest: int, longest: int) -> float | None:
    right = is_right(facts)
    if right is None:
        return None
    if shortest == longest:
        return 0.0
    value = 0.5 - (facts.num_tokens - shortest) / (longest - shortest)
    return value if right else min(0.0, value)


def _overlong(facts: RolloutFacts, config: RewardConfig) -> float | None:
    return None if config.overlong is None else overlong(facts, config.overlong)


def _cosine(facts: RolloutFacts, config: RewardConfig) -> float | None:
    return None if config.cosine is None else cosine(facts, config.cosine)


def _repetition(facts: RolloutFacts, config: RewardConfig) -> float | None:
    return None if config.repetition is None else repetition(facts, config.repetition)


PARTS: dict[str, Callable[[RolloutFacts, RewardConfig], float | None]] = {
    "accuracy": lambda facts, _: accuracy(facts),
    "format": lambda facts, _: form(facts),
    "language": lambda facts, _: language(facts),
    "overlong": _overlong,
    "cosine": _cosine,
    "repetition": _repetition,
    "judge": lambda facts, _: judge(facts),
    "code": lambda facts, _: code(facts),
}
"""Part -> its value; `length` depends on the group (`group_lengths`)."""
