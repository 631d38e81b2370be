"""The rewards of reinforcement learning: which parts a rollout's reward has, and the weight of each.

    reward: {accuracy: 1, format: 1, language: 1, overlong: {weight: 0.5, buffer_tokens: 2048}}

A number alone is a part's weight. What each part measures is in `distill.rewards.parts`.
"""

from collections.abc import Iterable
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, PositiveInt, model_validator

from distill.recipe.base import Language, Strict
from distill.recipe.filter import Judge

Weight = Annotated[float, Field(ge=0.0)]
When = Literal["right", "always"]
Finite = Annotated[float, Field(ge=-1000.0, le=1000.0)]

PARTS = ("accuracy", "format", "language", "overlong", "cosine", "length", "repetition", "judge", "code")
"""All parts, in the order in which they are shown."""


class LanguagePart(Strict):
    """Share of the thought's words in the target language, 0 to 1 (DeepSeek-R1, arXiv:2501.12948, section 2.3.2)."""

    weight: Weight = 1.0
    """Factor of this part in the sum."""
    language: Language | Literal["prompt"] = "en"
    """ISO 639-1 code of the target language; `prompt`: the prompt's own, and nothing where that is too short to
    tell."""
    when: When = "always"
    """`always`: added to the reward of wrong answers too, as DeepSeek-R1 does; `right`: to that of right ones alone."""


class OverlongPart(Strict):
    """Penalty for length, 0 to -1, that begins before the limit is reached (DAPO, arXiv:2503.14476, equation 13)."""

    weight: Weight = 1.0
    """Factor of this part in the sum."""
    max_tokens: PositiveInt | None = None
    """Length in tokens at which the penalty is -1. Default: the longest completion that is sampled."""
    buffer_tokens: PositiveInt | None = None
    """Number of tokens before that length over which the penalty grows. Default: a fifth of it, as in DAPO (4,096 of
    20,480)."""
    when: When = "right"
    """`right`: subtracted where the answer is right; `always`: everywhere, as in DAPO."""

    @model_validator(mode="after")
    def _buffer_fits(self) -> Self:
        if self.max_tokens is not None and (self.buffer_tokens or 0) > self.max_tokens:
            raise ValueError(
                f"buffer_tokens ({self.buffer_tokens}) exceeds max_tokens ({self.max_tokens}): the penalty would begin "
                "before the first token. Lower buffer_tokens"
            )
        return self


class CosinePart(Strict):
    """Value that follows a cosine from an empty completion to the longest one (arXiv:2502.03373, section 4.2).

    The defaults are that paper's.
    """

    weight: Weight = 1.0
    """Factor of this part in the sum."""
    max_tokens: PositiveInt | None = None
    """Length in tokens at which the curve ends. Default: the longest completion that is sampled."""
    right_short: Finite = 2.0
    """Value of a right answer without any tokens."""
    right_long: Finite = 1.0
    """Value of a right answer of max_tokens."""
    wrong_short: Finite = -10.0
    """Value of a wrong answer without any tokens."""
    wrong_long: Finite = 0.0
    """Value of a wrong answer of max_tokens."""
    exceeded: Finite = -10.0
    """Value of whatever reaches max_tokens."""
    when: When = "right"
    """`right`: only where the answer is right; `always`: everywhere, as in the paper, which then needs a penalty on
    repetition too, because long wrong answers are worth more than short ones."""


class LengthPart(Strict):
    """Value from 0.5 for the shortest of a group to -0.5 for the longest (Kimi k1.5, arXiv:2501.12599, section
    2.3.3)."""

    weight: Weight = 1.0
    """Factor of this part in the sum."""
    when: When = "right"
    """`right`: only where the answer is right; `always`: everywhere, as in the paper, where a wrong answer gets no more
    than 0."""


class RepetitionPart(Strict):
    """Penalty for repetition, 0 to -1."""

    weight: Weight = 1.0
    """Factor of this part in the sum."""
    measure: Literal["ngrams", "filter", "both"] = "both"
    """`ngrams`: the share of the completion's n-grams of tokens that occurred before (after arXiv:2502.03373, algorithm
    1); `filter`: -1 for a text that the default limits of `filter.readability` call repetitive; `both`: the larger
    penalty."""
    ngram_tokens: PositiveInt = 40
    """Number of tokens in an n-gram; 40 in that paper."""
    when: When = "right"
    """`right`: subtracted where the answer is right; `always`: everywhere, as in the paper."""


class JudgePart(Strict):
    """A judge's verdict, 1 or 0, on problems that no rule can grade; it never decides where a rule applies."""

    weight: Weight = 1.0
    """Factor of this part in the sum."""
    by: Judge | None = None
    """The judge. Default: that of `filter.judge`."""

    @model_validator(mode="after")
    def _only_fills(self) -> Self:
        if self.by is not None and self.by.role != "fill":
            raise ValueError(f"by.role is {self.by.role}: a judge rewards only what no rule can grade. Leave role out")
        return self


def _as_section(value: Any) -> Any:
    """Return a number as the section that it stands for."""
    return {"weight": value} if isinstance(value, int | float) and not isinstance(value, bool) else value


_Language = Annotated[LanguagePart | None, BeforeValidator(_as_section, Weight | LanguagePart | None)]
_Overlong = Annotated[OverlongPart | None, BeforeValidator(_as_section, Weight | OverlongPart | None)]
_Cosine = Annotated[CosinePart | None, BeforeValidator(_as_section, Weight | CosinePart | None)]
_Length = Annotated[LengthPart | None, BeforeValidator(_as_section, Weight | LengthPart | None)]
_Repetition = Annotated[RepetitionPart | None, BeforeValidator(_as_section, Weight | RepetitionPart | None)]
_Judge = Annotated[JudgePart | None, BeforeValidator(_as_section, Weight | JudgePart | None)]


class RewardConfig(Strict):
    """A rollout's reward: the sum of its parts, each times its weight. The default is DeepSeek-R1-Zero's; with
    `language: 1` it is DeepSeek-R1's. A rollout that could not be graded has no reward and is left out of its group."""

    accuracy: Weight = 1.0
    """Weight of the answer's grade by its task's rules: 1 right, 0 wrong."""
    format: Weight = 1.0
    """Weight of the form: 1 for one closed thought, an answer after it, and an end by itself; else 0."""
    language: _Language = None
    """Share of the thought's words in the target language: a weight, or keys. Default: not counted."""
    overlong: _Overlong = None
    """Penalty near the longest completion: a weight, or keys. Default: not counted."""
    cosine: _Cosine = None
    """Value by length, different for right and wrong answers: a weight, or keys. Default: not counted."""
    length: _Length = None
    """Value by length within the group: a weight, or keys. Default: not counted."""
    repetition: _Repetition = None
    """Penalty for repetition: a weight, or keys. Default: not counted."""
    judge: _Judge = None
    """Verdict of a judge where no rule applies: a weight (with `filter.judge`), or keys. Default: not counted."""
    code: Weight = 0.0
    """Weight of the share of tests that a program passes, 0 to 1; of other tasks it is no part."""

    @property
    def weights(self) -> dict[str, float]:
        """Return the weight of each part that has one, in the order of `PARTS`."""
        found = {name: getattr(self, name) for name in PARTS}
        told = {name: one if isinstance(one, float) else one.weight for name, one in found.items() if one is not None}
        return {name: weight for name, weight in told.items() if weight > 0}

    @property
    def gated(self) -> frozenset[str]:
        """Return the parts that count only where the answer is right (`when: right`)."""
        return frozenset(name for name in self.weights if getattr(getattr(self, name), "when", "always") == "right")

    @property
    def needs_grade(self) -> bool:
        """Return whether a rollout without a grade can have no reward."""
        return bool(self.weights.keys() & {"accuracy", "cosine", "length", "judge", "code"}) or bool(self.gated)

    @property
    def only_judged(self) -> bool:
        """Return whether a judge alone decides what is right; DeepSeek-R1 used none for reasoning (section 2.2.2)."""
        return "judge" in self.weights and not self.weights.keys() & {"accuracy", "code", "cosine"}

    def varying(self, tasks: Iterable[str], rules: Iterable[str]) -> list[str]:
        """Return the parts that may differ between the rollouts of a problem; without any, nothing is learned.

        Args:
            tasks: the problems' tasks.
            rules: the tasks that have a rule, `code` among them (`distill.rewards.rollouts.RULED`).
        """
        asked, ruled = set(tasks), set(rules)
        told = {"accuracy": bool(asked & ruled), "code": "code" in asked, "judge": bool(asked - ruled)}
        return [name for name in self.weights if told.get(name, True)]

    @model_validator(mode="after")
    def _can_vary(self) -> Self:
        if not self.weights:
            raise ValueError(
                "no part of the reward has a weight, so that every rollout would be worth the same. Give one a weight, "
                "e.g. accuracy: 1"
            )
        one = self.cosine
        if one is not None and self.weights.keys() == {"cosine"} and _is_flat(one):
            raise ValueError(
                "no part of the reward can vary: cosine alone has a weight, and its values are all the same. Give "
                "accuracy a weight"
            )
        return self


def _is_flat(cosine: CosinePart) -> bool:
    wrong = (0.0, 0.0) if cosine.when == "right" else (cosine.wrong_short, cosine.wrong_long, cosine.exceeded)
    return len({cosine.right_short, cosine.right_long, *wrong}) == 1
