"""What can be wrong between `rl:` and the other sections of a recipe, or of one round."""

from collections.abc import Iterator
from typing import Protocol

from distill.recipe.filter import FilterConfig, Judge
from distill.recipe.push import PushConfig
from distill.recipe.rl import RlConfig
from distill.recipe.sandbox import HasSources
from distill.recipe.sft import SftConfig

R1_ZERO = "r1-zero"
"""A value of `rl.prompt_format` and of `sft.chat_template`."""


class Reinforcing(HasSources, Protocol):
    """A recipe without rounds, or one round as such a recipe, as far as `rl:` depends on it."""

    @property
    def rl(self) -> RlConfig | None: ...
    @property
    def sft(self) -> SftConfig: ...
    @property
    def filter(self) -> FilterConfig: ...
    @property
    def push(self) -> PushConfig | None: ...
    @property
    def trains(self) -> bool: ...
    @property
    def has_traces(self) -> bool: ...
    @property
    def student_round(self) -> str | None: ...


def rl_problems(recipe: Reinforcing) -> Iterator[str]:
    """Yield the conflicts between `rl:` and other sections, each with its keys and how to fix it.

    Args:
        recipe: without rounds, or one round as a recipe without rounds.
    """
    config = recipe.rl
    if config is None:
        return
    held_out = recipe.eval.held_out if recipe.eval is not None else 0
    if not recipe.problems:
        yield "problems: is missing: rl: needs problems to train on" + (
            "; those of traces: are only answered there. Name their source in problems: too." if recipe.traces else "."
        )
    if config.probe.problems and not held_out:
        yield (
            f"rl.probe.problems ({config.probe.problems}) are taken from eval.held_out, which is not set. Set "
            "eval.held_out, or rl.probe.problems: 0 to train without a probe."
        )
    elif config.probe.problems > held_out:
        yield (
            f"rl.probe.problems ({config.probe.problems}) exceeds eval.held_out ({held_out}), which they are taken "
            "from. Lower rl.probe.problems, or raise eval.held_out."
        )
    limits = [source.limit for source in recipe.problems]
    most = sum(limit for limit in limits if limit is not None) - held_out
    if limits and None not in limits and config.prompts_per_step > most:
        yield (
            f"rl.prompts_per_step ({config.prompts_per_step}) exceeds the problems to train on: at most "
            f"{max(0, most)}, by the limit: of each source, without eval.held_out. Lower rl.prompts_per_step, or raise "
            "a limit."
        )
    has_rows = recipe.has_traces or recipe.student_round is not None
    if recipe.push is not None and recipe.push.dataset is not None and not has_rows:
        yield f"push.dataset ({recipe.push.dataset}): rl: trains on no rows that could be published. Remove it."
    yield from _judged(recipe)
    yield from _asked_as_trained(recipe)


def judge_of(recipe: Reinforcing) -> Judge | None:
    """Return the judge that rewards answers, or `None` if no judge does."""
    part = recipe.rl.reward.judge if recipe.rl is not None else None
    if part is None or not part.weight:
        return None
    told = recipe.filter.judge
    # Whatever it does in the filter, it may only reward what no rule can grade.
    return part.by or (None if told is None else told.model_copy(update={"role": "fill"}))


def rl_warnings(recipe: Reinforcing) -> list[str]:
    """Return what is allowed in `rl:` and seldom goes well."""
    found: list[str] = []
    if recipe.rl is None:
        return found
    if recipe.rl.reward.only_judged:
        found.append(
            "rl.reward: a judge alone decides what is right, and models learn to please judges rather than to be right "
            "(DeepSeek-R1 used none for reasoning, arXiv:2501.12948, 2.2.2). Give rl.reward.accuracy a weight."
        )
    if recipe.rl.algorithm == "distill" and not recipe.trains and recipe.student_round is None:
        found.append(
            "rl.algorithm: distill, of a student that nothing was taught before: a base ends its texts otherwise than "
            "its teacher, and its answers grow to rl.max_tokens (https://github.com/modelscope/ms-swift/issues/9526). "
            "Train it with sft: on some answers of the teacher first."
        )
    return found


def _judged(recipe: Reinforcing) -> Iterator[str]:
    """Yield why answers that need a judge have none."""
    assert recipe.rl is not None
    part = recipe.rl.reward.judge
    way = "{by: {model: …, compute: {base_urls: [http://localhost:8000/v1]}}}"
    if part is not None and part.weight and judge_of(recipe) is None:
        yield f"rl.reward.judge needs a judge: set filter.judge, or judge: {way}."
    elif (part is None or not part.weight) and any(source.task == "judge" for source in recipe.problems):
        yield (
            "task: judge: no rule grades answers to these problems, so rl: cannot reward them. Set rl.reward.judge, "
            f"e.g. judge: {way}, or use other problems."
        )


def _asked_as_trained(recipe: Reinforcing) -> Iterator[str]:
    """Yield why the prompts would not be those that `sft:` has trained on."""
    assert recipe.rl is not None
    if recipe.rl.prompt_format == R1_ZERO and recipe.trains and recipe.sft.chat_template != R1_ZERO:
        yield (
            "rl.prompt_format: r1-zero is for a base model, and sft: trains the student on "
            f"{recipe.sft.chat_template or 'its own chat template'}: what it learnt would not be asked for. Leave "
            "rl.prompt_format out (rl: then asks as sft: did), or set sft.chat_template: r1-zero as well."
        )
