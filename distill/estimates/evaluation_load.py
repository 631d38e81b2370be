"""How many answers an evaluation samples, and how long they are, benchmark by benchmark."""

from collections.abc import Callable

from distill.estimates.counts import Workload
from distill.estimates.measured import Sampled
from distill.estimates.quantities import Range, span, total
from distill.estimates.sampling_cost import SamplingLoad, completion_length
from distill.recipe.eval import EvalConfig
from distill.recipe.model import Recipe
from distill.recipe.sampling import Sampling
from distill.sources.problems import named_benchmarks


def asked_of_student(
    recipe: Recipe, work: Workload, trained_on: Range, num_models: int, seen: Sampled | None
) -> SamplingLoad:
    """Return the number and lengths of the samples of eval.

    Args:
        recipe: a recipe with `eval:`, without rounds.
        work: the problems.
        trained_on: completion tokens of the student's training rows.
        num_models: 2, base and student.
        seen: answers of this run, if any.
    """

    def length(sampling: Sampling) -> Range:
        # A student writes as in its training rows; a base may answer briefly, or never stop.
        most = sampling.max_tokens
        basis = f"like the training rows, {span(trained_on)} tokens; a base may be brief, or run into {most:,}"
        return Range(min(0.4 * trained_on.low, 0.5 * most), min(2.0 * trained_on.high, most), basis)

    return _asked_of_benchmarks(recipe, work, num_models, length, seen)


def asked_of_model(recipe: Recipe, work: Workload, model: str, seen: Sampled | None) -> SamplingLoad:
    """Return the number and lengths of the samples of one of the models that are measured without training.

    Args:
        recipe: a recipe with `eval:`, without rounds.
        work: the problems.
        model: Hub id or folder.
        seen: the model's answers in this run, if any.
    """
    return _asked_of_benchmarks(recipe, work, 1, lambda sampling: completion_length(model, sampling), seen)


def judging_notes(config: EvalConfig) -> list[str]:
    """Return what an estimate of an evaluation leaves out because a judge's server does it."""
    judged = [one.suite or one.source for one in config.benchmarks if one.is_judged]
    return [f"{', '.join(judged)}: the judge's own time and price are not part of the estimate"] if judged else []


def _asked_of_benchmarks(
    recipe: Recipe, work: Workload, num_models: int, length_of: Callable[[Sampling], Range], seen: Sampled | None
) -> SamplingLoad:
    """Return the samples of all benchmarks together, each with its own k and its own longest answer."""
    config = recipe.eval
    assert config is not None
    nums, lengths = [], []
    for name, source in named_benchmarks(recipe).items():
        k = config.k_of(source)
        # Sampling of an adaptive benchmark may stop early.
        least = min(k, source.adaptive.min_samples) if source is not None and source.adaptive else k
        nums.append(work.benchmarks[name].times(num_models * least, num_models * k))
        lengths.append(length_of(config.sampling_of(source)))
    shares = [num.middle / max(1.0, sum(one.middle for one in nums)) for num in nums]
    length = Range(
        sum(share * one.low for share, one in zip(shares, lengths, strict=True)),
        sum(share * one.high for share, one in zip(shares, lengths, strict=True)),
        "; ".join(dict.fromkeys(one.basis for one in lengths)),
    )
    if seen is not None and seen.are_enough:
        length = Range(0.8 * seen.completion_tokens, 1.2 * seen.completion_tokens, seen.basis)
    return SamplingLoad(total(nums), work.prompt_tokens, work.prompt_tokens, length)
