"""Whether answers as long as a benchmark allows fit a model's context, checked before any model is loaded."""

from distill.errors import ModelError
from distill.models.hub import Model
from distill.models.rope import rope_of
from distill.recipe.model import Recipe
from distill.sources.problems import named_benchmarks
from distill.storage.files import read_json


def check_context(model: Model, recipe: Recipe) -> None:
    """Check that the longest answers that are asked for leave room for a question.

    Args:
        model: the model, whose configuration is on this machine.
        recipe: a recipe with `eval:`, without rounds.

    Raises:
        ModelError: they do not; names the benchmark and the ways out.
    """
    config = recipe.eval
    assert config is not None
    context = rope_of(read_json(model.path / "config.json") or {}).context
    most = {name: config.sampling_of(source).max_tokens for name, source in named_benchmarks(recipe).items()}
    name = max(most, key=lambda one: most[one])
    if context is None or most[name] < context:
        return
    by = f" (protocol: {config.protocol})" if config.protocol is not None else ""
    way = f", leave out protocol: {config.protocol}" if config.protocol is not None else ""
    raise ModelError(
        f"eval: answers of up to {most[name]:,} tokens are asked for on {name}{by}, and {model.name} has a context of "
        f"{context:,} tokens, questions included. Lower eval.sampling.max_tokens, or the benchmark's own{way}, or "
        "measure a model with a longer context."
    )
