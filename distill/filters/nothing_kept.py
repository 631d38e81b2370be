"""Explanation for a filter that kept nothing: the most frequent reasons, and the recipe keys that decide them."""

from collections.abc import Mapping
from typing import Any

from distill.core.plurals import counted
from distill.core.records import REASON_KEYS, REASONS
from distill.recipe.model import Recipe
from distill.results.filter import FilterMetrics

NUM_REASONS = 3
_ABSENT = object()


def nothing_kept(metrics: FilterMetrics, recipe: Recipe, wanted_by: str) -> str:
    """Return why nothing was kept, and what would change that, as text of several lines.

    Args:
        metrics: metrics in the filter's manifest.
        recipe: the filter's recipe.
        wanted_by: the command that stops here.
    """
    num_traces, reasons = metrics.num_traces, metrics.reasons
    if num_traces and reasons.get("error") == num_traces:
        return f"{wanted_by}: the filter kept none of {counted(num_traces, 'trace')}: {_all_errors(recipe)}"
    most = sorted(reasons.items(), key=lambda pair: -pair[1])[:NUM_REASONS]
    lines = [f"{wanted_by}: the filter kept none of {counted(num_traces, 'trace')}, so there is nothing to learn from."]
    lines += [f"  {reason} {num:,}: {REASONS.get(reason, '')}{_keys(reason, recipe)}" for reason, num in most]
    lines.append(
        "`distill filter --explain ID` explains one trace; filter/dropped has all of them. Change the "
        "recipe and filter again: as nothing was kept, that needs no --force. If the traces themselves are the "
        "problem, give the teacher examples or choose a stronger one."
    )
    return "\n".join(lines)


def _all_errors(recipe: Recipe) -> str:
    if recipe.generate is None:
        return (
            "their source marks each of them as an error. Check its column of finish reasons "
            "(traces: columns.finish_reason)."
        )
    return (
        "the teacher answered none of the requests: each sample ended in an error (filter/dropped has the messages). "
        "Fix the teacher or its server, then retry with `distill generate --retry-errors`."
    )


def _keys(reason: str, recipe: Recipe) -> str:
    """Return the keys that decide a reason, each with the value that would keep such traces, or its current value."""
    values = {key: _value(recipe.model_dump(mode="json"), key) for key in REASON_KEYS.get(reason, ())}
    said = [
        f"{key}: {str(not value).lower()} keeps them" if isinstance(value, bool) else f"{key} is {_shown(value)}"
        for key, value in values.items()
        if value is not _ABSENT
    ]
    return f" ({'; '.join(said)})" if said else ""


def _value(tree: Any, key: str) -> Any:
    for name in key.split("."):
        if not isinstance(tree, Mapping) or name not in tree:
            return _ABSENT
        tree = tree[name]
    return tree


def _shown(value: Any) -> str:
    if value is None:
        return "not set"
    return f"{{{', '.join(value)}}}" if isinstance(value, Mapping) else str(value)
