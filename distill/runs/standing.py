"""Determines how far each stage of a run is, without the network and without loading a model.

Hub datasets and models are not looked up. They are assumed unchanged since the run, and the result says so.
"""

from collections.abc import Mapping
from typing import Any

from distill.errors import DistillError
from distill.estimates.local_data import is_small_and_local
from distill.estimates.measured import Measured
from distill.estimates.models import local_model
from distill.estimates.stage import CHANGED, DEPENDS, DONE, NEW, PARTLY, StageProgress
from distill.models.hub import Model
from distill.models.students import hub_id_of
from distill.recipe.lineage import changed_settings
from distill.runs.steps import decide
from distill.sources.problems import ProblemSets
from distill.stages import RunContext
from distill.stages.table import STAGES

SHOWN_KEYS = 3


def standings(run: RunContext, seen: Measured, num_wanted: float) -> dict[str, StageProgress]:
    """Return how far each stage is.

    Args:
        run: the recipe and its folder; what it has loaded already is reused.
        seen: measurements from the folder.
        num_wanted: samples that the recipe requests from the teacher.
    """
    found: dict[str, StageProgress] = {}
    looked = _Looked(run)
    is_upstream_done = True
    for name in run.recipe.stage_names:
        standing = _standing(looked, name) if is_upstream_done else _after(run, name, found)
        found[name] = standing = _more_precisely(run, name, standing, seen, num_wanted)
        is_upstream_done = is_upstream_done and standing.state == DONE
    return found


def _more_precisely(
    run: RunContext, name: str, standing: StageProgress, seen: Measured, num_wanted: float
) -> StageProgress:
    """Return the standing as the stage itself sees it, if it can tell more."""
    precisely = getattr(STAGES[name], "standing", None)
    try:
        return precisely(run, standing, seen, num_wanted) if precisely else standing
    except (DistillError, OSError):  # a damaged file, which the run will report
        return standing


_SLOW = ("problem_sets", "teacher_base", "base_model", "evaluation_packs")


class _Looked:
    """A run with local models, and with empty stand-ins for datasets that would have to be loaded from the Hub."""

    def __init__(self, run: RunContext) -> None:
        known = {key: found for key in _SLOW if (found := run.if_loaded(key)) is not None}
        self.assumes_data = "problem_sets" not in known and not is_small_and_local(run.recipe)
        self.assumes_packs = "evaluation_packs" not in known and bool(run.recipe.filter.decontaminate)
        stand_ins: dict[str, Any] = {"evaluation_packs": []}
        if self.assumes_data:
            stand_ins["problem_sets"] = ProblemSets([], {}, {}, 0, frozenset())
        stand_ins |= _local("base_model", run.student.hub_id, run.recipe.student_revision)
        generate = run.recipe.generate
        if generate is not None and not generate.compute.base_urls:
            stand_ins |= _local("teacher_base", hub_id_of(generate.teacher), generate.revision)
        self.run = run.with_loaded(**{**stand_ins, **known})

    def has(self, model: str) -> bool:
        """Return whether the files of a model are known, or none are needed because a server holds it."""
        return self.run.if_loaded(model) is not None or (model == "teacher_base" and self.run.teacher_is_served)

    def assumes(self, key: str) -> bool:
        """Return whether a key of an identity comes from a dataset that was not loaded."""
        return self.assumes_packs if key == "evaluation_sets" else self.assumes_data


def _local(key: str, hub_id: str, revision: str | None) -> dict[str, Model]:
    """Return a model that is on this machine, by the name of its lookup; empty if it is not."""
    model = local_model(hub_id, revision, weights=False)
    return {} if model is None else {key: model}


def _standing(looked: _Looked, name: str) -> StageProgress:
    run, stage = looked.run, STAGES[name]
    try:
        folder = run.folder(name)
        before, manifest = folder.identity, folder.manifest
        if before is None:
            return StageProgress(NEW)
        if manifest is None and (anew := getattr(stage, "BEGINS_ANEW", "")):
            return StageProgress(NEW, anew)
        if any(not looked.has(model) for model in getattr(stage, "MODELS", ())):
            return _unseen(manifest, "the model is not on this machine, so it is not known whether it has changed")
        assumed_identity = getattr(stage, "assumed_identity", None) if looked.assumes_data else None
        now = assumed_identity(run, before) if assumed_identity else stage.identity(run)
    except (DistillError, OSError, KeyError) as error:
        return StageProgress(DEPENDS, str(error).splitlines()[0])
    assumed = _assumed(looked, name, before, now)
    decision = decide(folder, {**now, **{key: before[key] for key in assumed}}, stage.keeps_results)
    is_assumed = decision.action == "skip" and bool(assumed) and manifest is not None
    if is_assumed and (changed := changed_settings(run.recipe, name, manifest or {})):
        is_extended = stage.keeps_results(dict.fromkeys(stage.FROM_DATASETS, (None, None)))
        return StageProgress(PARTLY, "extended") if is_extended else _changed(list(changed))
    if decision.action == "skip":
        why = "if the datasets have not changed" if assumed else ""
        return StageProgress(DONE, why, 0.0, manifest["seconds"] if manifest else None)
    if decision.action == "refuse":
        return _changed(list(decision.changed))
    return StageProgress(PARTLY, "will be extended" if decision.changed else "resumes")


def _changed(keys: list[str]) -> StageProgress:
    more = f" and {len(keys) - SHOWN_KEYS} more" if len(keys) > SHOWN_KEYS else ""
    return StageProgress(
        CHANGED, f"made with another {', '.join(keys[:SHOWN_KEYS])}{more}; needs --force or a new name"
    )


def _assumed(looked: _Looked, name: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return the keys of an identity that are assumed unchanged."""
    keys = STAGES[name].FROM_DATASETS
    return [key for key in keys if looked.assumes(key) and key in before and key in now]


def _unseen(manifest: Mapping[str, Any] | None, why: str) -> StageProgress:
    if manifest is None:
        return StageProgress(PARTLY, why)
    return StageProgress(DONE, why, 0.0, manifest["seconds"])


def _after(run: RunContext, name: str, earlier: Mapping[str, StageProgress]) -> StageProgress:
    """Return the standing of a stage behind one that is not done."""
    if not (run.run_dir / name).exists():
        return StageProgress(NEW)
    first = next(stage for stage, standing in earlier.items() if standing.state != DONE)
    return StageProgress(DEPENDS, f"has earlier results; {first} runs first, and may change their inputs")
