"""`distill eval --check-harness`: do the published scores of a suite's reference models come out?"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from distill.cli.app import CommonOptions
from distill.cli.evaluation import Request, absolute, measure, models_of
from distill.cli.output import print_json, print_result
from distill.errors import UserError


def check_references(given: CommonOptions, asked: Request, run_stages: Callable[..., None]) -> None:
    """Measure each reference model on the suites with a published score of it, and say whether that comes out.

    Args:
        given: the options of every command.
        asked: those of this one.
        run_stages: as for `measure`.

    Raises:
        UserError: one does not come out, or it cannot be told.
    """
    from distill.evaluation.model_names import short_name

    suites_of = suites_of_references(asked)
    quietly = dataclasses.replace(given, as_json=False, quiet=True) if given.as_json else given
    found: list[dict[str, Any]] = []
    for model, suites in suites_of.items():
        name = asked.name
        if name is not None and len(suites_of) > 1:
            name = f"{name}-{short_name(model)}"
        one = dataclasses.replace(asked, models=(model,), suites=suites, name=name)
        found += checked_references(given, one, model, measure(quietly, one, run_stages))
    if given.as_json:
        print_json({"schema_version": 1, "checks": found})
    elif not given.quiet:
        print_result("\n".join(str(one["text"]) for one in found))
    failed = [
        f"{what} {'; '.join(named)}"
        for outcome, what in (("outside", "does not come out for"), ("unknown", "cannot be compared for"))
        if (named := [f"{one['benchmark']}, {one['model']}" for one in found if one["outcome"] == outcome])
    ]
    if failed:
        raise UserError(f"eval: --check-harness: the published score {', and '.join(failed)}.")


def suites_of_references(asked: Request) -> dict[str, tuple[str, ...]]:
    """Return the models by which the harness is checked, each with the suites that have a published score of it.

    They are those that were named, or each suite's first reference.

    Raises:
        UserError: a suite has no reference, or none among the named models; or a named model is none of them.
    """
    from distill.models.students import hub_id_of
    from distill.recipe.suites import load_suite

    named = [hub_id_of(model) for model in models_of(asked)]
    known = {suite: [reference.model for reference in load_suite(suite).references] for suite in asked.suites}
    for suite, references in known.items():
        if not references:
            raise UserError(f"eval: --check-harness: {suite} names no reference model, so it cannot be checked.")
        if named and not set(named) & set(references):
            raise UserError(
                f"eval: --check-harness: {', '.join(asked.models)}: no published score on {suite} is known of it. "
                f"Known are those of {', '.join(references)}."
            )
    found: dict[str, tuple[str, ...]] = {}
    for model in named or [references[0] for references in known.values()]:
        found[model] = tuple(suite for suite in known if model in (known[suite] if named else known[suite][:1]))
        if not found[model]:
            raise UserError(
                f"eval: --check-harness: {model}: no published score on {', '.join(asked.suites)} is known of it. "
                f"Known are those of {', '.join(dict.fromkeys(one for some in known.values() for one in some))}."
            )
    return found


def checked_references(given: CommonOptions, asked: Request, model: str, path: Path) -> list[dict[str, Any]]:
    """Return of each suite whether the published score of a model comes out.

    Args:
        given: the options of every command.
        asked: those of this one; its suites are those with a published score of the model.
        model: the model.
        path: the recipe that measured it.
    """
    from distill.evaluation.references import check_reference
    from distill.recipe.suites import load_suite
    from distill.results.kinds import stage_with
    from distill.results.measure import MeasureMetrics
    from distill.sources.problems import named_benchmarks
    from distill.storage.run_folder import StageFolder

    recipe = dataclasses.replace(given, recipe=str(path)).load()
    manifest = StageFolder(path.parent / stage_with(MeasureMetrics)).manifest
    assert manifest is not None  # the stage has just run
    sources = named_benchmarks(recipe)
    wanted = {absolute(suite): load_suite(suite) for suite in asked.suites}
    found: list[dict[str, Any]] = []
    for one in MeasureMetrics.from_json(manifest["metrics"]).benchmarks:
        source = sources.get(one.name)
        suite = wanted.get(source.suite or "") if source else None
        if source is None or suite is None:
            continue
        is_limited = source.limit not in (None, suite.benchmark.limit)
        (score,) = (score for score in one.models.values() if score.model == model)
        for reference in suite.references:
            if reference.model != model:
                continue
            checked = check_reference(one.name, score, reference, one.protocol.metric or "", is_limited)
            told = {"benchmark": one.name, "model": model, "published": reference.score, "source": reference.source}
            found.append({**told, "score": score.to_json(), "outcome": checked.outcome, "text": checked.text})
    return found
