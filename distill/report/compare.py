"""Comparison of two runs, as JSON-ready data and as a page: funnels, scores on shared problems, recipe differences."""

from collections.abc import Mapping, Sequence
from typing import Any

from distill.core.formatting import (
    Row,
    count,
    duration,
    engine_name,
    mapping,
    number,
    percent,
    plain,
    points,
    points_range,
)
from distill.core.records import REASONS
from distill.errors import UserError
from distill.report import charts
from distill.report.comparable import Side, are_recorded, compared_benchmarks, sides_of
from distill.report.gather import Run
from distill.report.metrics import filtered, imported, measured, models_measured, only_measures, sampled, trained
from distill.report.pairs import fit_pairs
from distill.report.recipe_keys import plain_keys
from distill.report.render import cards_of, have_formulas, page, teacher_names
from distill.report.run_pairs import RULE, evaluation_pairs, training_pairs
from distill.report.score_words import PROTOCOL
from distill.storage.fingerprints import differences

COMPARISON_VERSION = 1

NOT_COMPARED = ("name", "description", "schema_version")


def compare_runs(first: Run, second: Run) -> dict[str, Any]:
    """Return the differences between two runs, JSON-ready.

    Raises:
        UserError: both have scores of a benchmark, and no two of one protocol.
    """
    return {
        "schema_version": COMPARISON_VERSION,
        "names": labels(first, second),
        "funnel": funnels(first.facts, second.facts),
        "scores": scores(first, second),
        "recipes": [
            {"key": key, "first": one, "second": other}
            for key, (one, other) in differences(
                mapping(first.facts["recipe"]), mapping(second.facts["recipe"])
            ).items()
            if key not in NOT_COMPARED and ".compute." not in f".{key}."
        ],
    }


def labels(first: Run, second: Run) -> list[str]:
    """Return distinct names for the two runs."""
    names = [str(run.facts.get("name") or run.folder.name) for run in (first, second)]
    if names[0] != names[1]:
        return names
    folders = [run.folder.resolve() for run in (first, second)]
    at = [f"{folder.parent.name}/{folder.name}" for folder in folders]
    return (
        at if at[0] != at[1] else [f"{name} ({place})" for name, place in zip(names, ("first", "second"), strict=True)]
    )


def funnels(first: Row, second: Row) -> list[dict[str, Any]]:
    """Return each step of both funnels; `sides` has each run's count and share of all its samples."""
    steps = [dict(map(tuple, facts["funnel"])) for facts in (first, second)]
    totals = [found.get("sampled", 0) for found in steps]
    rows = []
    for name in ("sampled", *REASONS, "kept"):
        if any(found.get(name) for found in steps) or (name in ("sampled", "kept") and any(steps)):
            sides = [
                {"num": found.get(name, 0), "share": found.get(name, 0) / total if total else None}
                for found, total in zip(steps, totals, strict=True)
            ]
            kind = name if name in ("sampled", "kept") else "dropped"
            rows.append({"name": name, "kind": kind, "why": REASONS.get(name, name), "sides": sides})
    return rows


def scores(first: Run, second: Run) -> dict[str, Any]:
    """Return both models' scores on the problems they share; `why_not` says why they cannot be compared.

    Raises:
        UserError: both have scores of a benchmark, and no two of one protocol.
    """
    names = labels(first, second)
    sides = sides_of(first, second, names)
    found: dict[str, Any] = {
        "models": [side.who for side in sides],
        "num_problems": [_num_problems(side) for side in sides],
        "overall": [_overall(side) for side in sides],
        "num_shared": 0,
        "protocols": [],
        "are_recorded": are_recorded(sides),
        "engines": [_engine(side) for side in sides],
        "shared": None,
        "difference": None,
        "why_not": None,
        "benchmarks": [],
    }
    missing = [side.name for side in sides if side.model is None]
    if missing:
        return {**found, "why_not": f"{' and '.join(missing)} {'has' if len(missing) == 1 else 'have'} no scores yet."}
    found["benchmarks"], together = compared_benchmarks(sides)
    found["protocols"] = [row for one in found["benchmarks"] for row in one["protocols"]]
    if together["scores"] is None:
        return {**found, "why_not": _why_not(sides, found["benchmarks"])}
    return {
        **found,
        "num_shared": together["num_shared"],
        "shared": together["scores"],
        "difference": together["difference"],
    }


def _why_not(sides: Sequence[Side], benchmarks: Sequence[Mapping[str, Any]]) -> str:
    """Return why no score of two runs is compared.

    Raises:
        UserError: the protocols were recorded, and differ.
    """
    differing = [one for one in benchmarks if one["protocols"]]
    if not differing:
        return "The models were measured on different problems; none is in both sets."
    if not any(side.protocols for side in sides):  # of an older version
        words = ", ".join(PROTOCOL[row["key"]] for one in differing for row in one["protocols"])
        return f"The models were measured under different protocols ({words})."
    told = "; ".join(f"{one['name']}: {one['why_not']}" for one in differing)
    raise UserError(
        f"{sides[0].name} and {sides[1].name}: scores by different protocols are not put side by side, and no "
        f"benchmark was measured by one protocol in both. {told}. Evaluate one of the two again by the other's "
        "protocol: change eval: in its recipe, then `distill eval --force`."
    )


def _num_problems(side: Side) -> int | None:
    of_student = mapping(measured(side.run.facts).get("student")).get("num_problems")
    nums = [number(one.get("num_problems")) for one in side.results.values()]
    return of_student if of_student is not None else int(sum(num or 0 for num in nums)) or None


def _overall(side: Side) -> Row | None:
    return mapping(measured(side.run.facts).get("student")) or None


def _engine(side: Side) -> str | None:
    engine = mapping(measured(side.run.facts).get("protocol")).get("engine")
    of_model = mapping(models_measured(side.run.facts).get("engine")).get(side.model.role if side.model else "")
    return engine or (engine_name(of_model) if of_model else None)


def render_comparison(first: Run, second: Run, comparison: Mapping[str, Any]) -> str:
    """Return the self-contained page that compares two runs."""
    names = comparison["names"]
    sides = sides_of(first, second, names)
    models = [side.model for side in sides if side.model is not None]
    evaluated = evaluation_pairs(first, second, models, [side.asked for side in sides]) if len(models) == 2 else ()
    pairs = [*evaluated, *training_pairs(first, second)]
    widest = max((side["share"] or 0 for row in comparison["funnel"] for side in row["sides"]), default=0) or 1
    train = not all(only_measures(run.facts) for run in (first, second))
    rows = _benchmark_rows(comparison)
    values = {
        "names": names,
        "comparison": comparison,
        "headline": headline(comparison),
        "glance": glance(first.facts, second.facts, _is_one_measure(comparison)),
        "benchmarks": rows,
        "apart": [one for one in comparison["scores"]["benchmarks"] if one["why_not"]],
        "axis": charts.score_axis(rows),
        "widest": widest,
        "train": train,
        "rule": RULE,
        "damaged": [(name, run.damage.to_json()) for name, run in zip(names, (first, second), strict=True)],
    }
    funnel = [("funnel", "Funnels")] if train else []
    sections = [("glance", "At a glance"), *funnel, ("scores", "Scores"), ("traces", "Traces")]
    title = f"{names[0]} and {names[1]}"
    return page(
        "compare.html.jinja",
        title,
        sections,
        values,
        lambda budget: fit_pairs(pairs, budget),
        {"names": names, "keys": plain_keys()},
        with_formulas=have_formulas(cards_of(pairs)),
    )


def _benchmark_rows(comparison: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return each benchmark that is compared, for the charts; first all of them together, unless there is one."""
    found, names = comparison["scores"], comparison["names"]
    compared = [one for one in found["benchmarks"] if not one["why_not"]]
    if len(compared) > 1:
        whole = {
            "name": "All of these benchmarks",
            "num_shared": found["num_shared"],
            "difference": found["difference"],
        }
        parts = [
            [one["name"] for one in compared if one["scores"][place].get("incomplete")] for place in range(len(names))
        ]
        told = [f"samples are missing in {', '.join(part)}" if part else "" for part in parts]
        both = [{**score, "incomplete": why} for score, why in zip(found["shared"], told, strict=True)]
        compared = [{**whole, "scores": both}, *compared]
    return [
        {
            **one,
            "models": [
                # The words, not the counts, tell that a score is incomplete: it is that of the shared problems.
                {
                    **charts.model_score(name, score),
                    "incomplete": score.get("incomplete", ""),
                    "label": name,
                    "kind": kind,
                }
                for name, score, kind in zip(names, one["scores"], ("base", "student"), strict=True)
            ],
        }
        for one in compared
    ]


def _is_one_measure(comparison: Mapping[str, Any]) -> bool:
    """Return whether the overall scores of both runs are of the same benchmarks by the same protocols."""
    found = comparison["scores"]
    return not any(one["why_not"] for one in found["benchmarks"])


def headline(comparison: Mapping[str, Any]) -> str:
    """Return in words which model is better, or why the scores are not compared."""
    found = mapping(comparison["scores"])
    if found["why_not"]:
        return f"The scores are not compared: {found['why_not'][0].lower()}{found['why_not'][1:]}"
    (one, other), gain = found["models"], found["difference"]
    one = one.replace("the student", "that") if other.startswith("the student of") else one
    low, high = gain["interval_95"]
    before, after = (percent(one["pass_at_1"]) for one in found["shared"])
    text = (
        f"On the {count(found['num_shared'])} problems that both were measured on, {other} solves "
        f"{after} and {one} {before}: {points(gain['pass_at_1'])} points "
        f"(95% interval {points_range(gain['interval_95'])})."
    )
    return f"{text} The interval includes zero, so this may be chance." if low <= 0 <= high else text


def glance(first: Row, second: Row, with_scores: bool = True) -> list[dict[str, Any]]:
    """Return the runs' main facts in two columns, without those that neither run has.

    Args:
        first: facts of one run.
        second: facts of the other.
        with_scores: with both runs' overall scores; they may stand side by side only if they measure the same.
    """

    def rows(facts: Row) -> dict[str, str]:
        stages = mapping(facts["stages"])
        made, kept, sft = sampled(facts) or imported(facts), filtered(facts), trained(facts)
        evaluation = measured(facts) if with_scores else {}
        seconds = [number(mapping(stage).get("seconds")) or 0.0 for stage in stages.values()]
        return {
            "State": facts["state"],
            "Student": "" if only_measures(facts) else str(sft.get("student") or facts.get("student") or ""),
            "Teacher": str(made.get("teacher") or teacher_names(mapping(facts.get("teachers")))),
            "Traces": count(kept.get("num_traces") or made.get("num_samples")),
            "Training rows": count(kept.get("num_kept")),
            "Problems with a row": count(kept.get("num_problems_kept")),
            "Tokens of the rows": count(kept.get("num_kept_tokens") or None),
            "Steps": count(sft.get("num_steps")),
            "Final loss": plain(sft.get("final_loss")),
            "pass@1": percent(mapping(evaluation.get("student")).get("pass_at_1")),
            "Base’s pass@1": percent(mapping(evaluation.get("base")).get("pass_at_1")),
            "Time": duration(sum(seconds)) if any(seconds) else "",
        }

    one, other = rows(first), rows(second)
    return [
        {"name": name, "sides": [one[name] or "–", other[name] or "–"]}
        for name in one
        if {one[name], other[name]} - {"", "–"}
    ]
