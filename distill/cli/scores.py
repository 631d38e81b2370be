"""Scores as tables."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from distill.core.plurals import counted

if TYPE_CHECKING:
    from distill.results.eval import Benchmark, EvalResult, Figure, Scores
    from distill.results.measure import ModelsOnBenchmark

MAX_GROUPS = 16
"""Most groups that are told beside a score: months and difficulties, not the 57 subjects of MMLU."""


def score_table(metrics: "Scores", benchmarks: "Sequence[Benchmark]" = ()) -> Any:
    """Return the scores of base and student, on each benchmark and together if there are several."""
    from rich.table import Table

    several = benchmarks if len(benchmarks) > 1 else []
    drawn = {one.base.samples_per_problem for one in benchmarks} or {metrics.base.samples_per_problem}
    each = f", {counted(drawn.pop(), 'sample')} each" if len(drawn) == 1 else ""
    title = f"Scores on {counted(len(several), 'benchmark')}{each}"
    if not several:
        title = f"pass@1 on {metrics.base.num_problems} problems{each}"
    table = Table(title=title, caption_justify="left")
    for column in ("", "score" if several else "pass@1", "95% interval", "cut off"):
        table.add_column(column, justify="left" if not column else "right")
    rows: list[tuple[str, Scores]] = [(one.name, one) for one in several]
    # Where benchmarks have several metrics, the scores of one are averaged.
    pooled = sum(one.base.num_problems for one in several) == metrics.base.num_problems
    rows.append(("all" if several and pooled else "all of one metric" if several else "", metrics))
    notes: list[str] = []
    for name, one in rows:
        for role, score in (("base", one.base), ("student", one.student)):
            told = f"{name} {role}".strip()
            table.add_row(told, score.text, interval_text(score), f"{score.truncated_share:.1%}")
            notes += notes_of(told, score)
        gain = one.difference
        shown = "not known" if gain.pass_at_1 is None else f"{100 * gain.pass_at_1:+.1f}"
        table.add_row("difference", shown, _points(gain.interval_95), "")
        if gain.bounds is not None:
            notes.append(f"{name} difference: between {_points(gain.bounds, ' and ')} points".strip())
    table.caption = _caption(notes)
    return table


def models_table(benchmarks: Sequence["ModelsOnBenchmark"]) -> Any:
    """Return the scores of several models on several benchmarks."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title="Scores, with 95% intervals", caption_justify="left")
    for column in ("benchmark", "model", "score", "95% interval", "problems", "samples", "cut off", "protocol"):
        left = column in ("benchmark", "model")
        table.add_column(column, justify="left" if left else "right", no_wrap=not left)
    notes: list[str] = []
    for one in benchmarks:
        for number, (model, score) in enumerate(one.models.items()):
            drawn = str(score.samples_per_problem)
            if score.samples_range is not None:
                drawn = "{} to {}".format(*score.samples_range)
            cells = (score.text, interval_text(score), f"{score.num_problems:,}", drawn)
            name = "" if number else one.name
            table.add_row(Text(name), Text(model), *cells, f"{score.truncated_share:.1%}", one.protocol.hash)
            notes += notes_of(f"{one.name}, {model}", score)
        if one.protocol.comparable_with:
            notes.append(f"{one.name}: {one.protocol.comparable_with}")
    table.caption = _caption(notes)
    return table


def notes_of(of: str, score: "EvalResult") -> list[str]:
    """Return what else is to be told of a score: why it is incomplete, warnings, groups, other figures.

    Args:
        of: the benchmark and the model.
        score: the score.
    """
    told = [incomplete_text(score), *score.flags]
    if score.shown:
        told.append(", ".join(f"{figure} {value:.1%}" for figure, value in score.shown.items()))
    if 0 < len(score.groups) <= MAX_GROUPS:
        told.append(f"by group: {groups_text(score)}")
    if score.figures:
        told.append(figures_text(score.figures))
    return [f"{of}: {one}" for one in told if one]


def _caption(notes: Iterable[str]) -> Any:
    from rich.text import Text

    return Text("\n".join(dict.fromkeys(notes))) if notes else None


def interval_text(score: "EvalResult") -> str:
    low, high = score.interval_95
    return f"{low:.1%} to {high:.1%}"


def incomplete_text(score: "EvalResult") -> str:
    """Return why a score is incomplete and what it could be; empty if it is complete."""
    if score.bounds is None:
        return ""
    low, high = score.bounds
    missing = f"{score.num_missing:,} samples missing or failed" if score.num_missing else ""
    ungraded = f"{score.num_ungraded:,} answers not graded" if score.num_ungraded else ""
    why = " and ".join(filter(None, (missing, ungraded)))
    return f"incomplete, {why}; the score is between {low:.1%} and {high:.1%}"


def groups_text(score: "EvalResult") -> str:
    """Return the score of each group with its number of problems, in words."""
    nums = score.group_problems
    told = (
        f"{name} {value:.1%}" + (f" of {nums[name]:,}" if name in nums else "") for name, value in score.groups.items()
    )
    return ", ".join(told)


def figures_text(figures: "Mapping[str, Figure]") -> str:
    """Return a suite's further figures, in words."""
    from distill.report.score_words import rating_words
    from distill.results.eval import WEAK

    rating = {key: figure.to_json() for key, figure in figures.items()}
    told = [f"{name} {said}" for name, said in rating_words(rating)]
    for key, figure in figures.items():
        if key == WEAK or key.startswith("rating_"):
            continue
        limits = figure.interval_95
        span = "" if limits is None else f" ({limits[0]:.1%} to {limits[1]:.1%})"
        told.append(f"{key.replace('_', ' ')} {figure.value:.1%}{span}")
    if WEAK in figures and figures[WEAK].value:
        told.append(f"weak tests of {counted(round(figures[WEAK].value), 'problem')}")
    return ", ".join(told)


def rounds_table(scores: dict[str, Any]) -> Any:
    """Return the scores of a run with rounds, one model a line, with its difference to the base."""
    from rich.table import Table
    from rich.text import Text

    from distill.results.eval import EvalResult

    models = scores["models"]
    results = {name: EvalResult.from_json(row) for name, row in models.items()}
    first = next(iter(results.values()))
    samples = counted(first.samples_per_problem, "sample")
    table = Table(title=f"pass@1 on {first.num_problems} problems, {samples} each", caption_justify="left")
    for column in ("", "pass@1", "95% interval", "over the base", "cut off"):
        table.add_column(column, justify="left" if not column else "right")
    over_base = {pair["of"]: pair for pair in scores["pairs"] if pair["over"] == models[pair["of"]].get("base")}
    notes: list[str] = []
    for name, result in results.items():
        pair = over_base.get(name)
        gain = "" if pair is None else f"{100 * pair['pass_at_1']:+.1f} ({_points(pair['interval_95'])})"
        table.add_row(Text(name), result.text, interval_text(result), gain, f"{result.truncated_share:.1%}")
        notes += notes_of(name, result)
    notes += [f"{one['of']} over {one['over']}: not compared, {one['why']}" for one in scores.get("not_paired", ())]
    table.caption = _caption(notes)
    return table


def _points(interval: Sequence[float], between: str = " to ") -> str:
    return f"{100 * interval[0]:+.1f}{between}{100 * interval[1]:+.1f}"
