"""Determines how far each stage of a run is, without the network and without loading a model.

Hub datasets and models are not looked up. They are assumed unchanged since the run, and the result says so.
"""

import math
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
from distill.runs.steps import STAGES, decide
from distill.sources.problems import ProblemSets
from distill.stages import RunContext
from distill.storage.layout import CHECKPOINTS, STUDENT

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
        if name == "generate" and standing.state in (PARTLY, NEW) and seen.traces is not None:
            left = max(0.0, 1 - seen.traces.num_samples / max(1.0, num_wanted))
            why = f"{seen.traces.num_samples:,} of {num_wanted:,.0f} samples are done"
            standing = StageProgress(PARTLY, why, left)
        if name == "sft" and standing.state == PARTLY:
            standing = _by_checkpoint(run, standing)
        found[name] = standing
        is_upstream_done = is_upstream_done and standing.state == DONE
    return found


def _by_checkpoint(run: RunContext, standing: StageProgress) -> StageProgress:
    """Return how much of the training is left, from the step of its newest checkpoint."""
    manifest = run.folder("filter").manifest
    folder = run.folder("sft").path / CHECKPOINTS
    numbers = [file.name.rpartition("-")[2] for file in folder.glob("checkpoint-*")]
    steps = max((int(number) for number in numbers if number.isdecimal()), default=0)
    if manifest is None or not steps:
        return standing
    config = run.recipe.sft
    num_steps = math.ceil(math.ceil(manifest["metrics"]["num_kept"] / config.batch_size) * config.epochs)
    left = max(0.0, 1 - steps / max(1, num_steps))
    return StageProgress(PARTLY, f"resumes at step {steps:,} of {num_steps:,}", left)


class _Looked:
    """A run with local models, and with empty stand-ins for datasets that would have to be loaded from the Hub."""

    def __init__(self, run: RunContext) -> None:
        self.run = RunContext(run.recipe, run.run_dir, needs_weights=False, earlier=run.earlier)
        known = run.__dict__
        self.assumes_data = "problem_sets" not in known and not is_small_and_local(run.recipe)
        place = self.run.__dict__  # cached properties store their values here
        for key in ("problem_sets", "teacher_base", "base_model", "evaluation_packs"):
            if key in known:
                place[key] = known[key]
        if self.assumes_data:
            place["problem_sets"] = ProblemSets([], {}, {}, 0, frozenset())
        if "evaluation_packs" not in known:
            place["evaluation_packs"] = []
            self.assumes_packs = bool(run.recipe.filter.decontaminate)
        else:
            self.assumes_packs = False
        recipe = run.recipe
        if "base_model" not in place:
            self._stand_in("base_model", self.run.student.hub_id, recipe.student_revision)
        if recipe.generate is not None and not self.run.teacher_is_served and "teacher_base" not in place:
            teacher = recipe.generate.teacher
            hub_id = hub_id_of(teacher)
            self._stand_in("teacher_base", hub_id, recipe.generate.revision)

    def _stand_in(self, key: str, hub_id: str, revision: str | None) -> None:
        model: Model | None = local_model(hub_id, revision, weights=False)
        if model is not None:
            self.run.__dict__[key] = model


def _standing(looked: _Looked, name: str) -> StageProgress:
    run = looked.run
    try:
        folder = run.folder(name)
        before, manifest = folder.identity, folder.manifest
        if before is None:
            return StageProgress(NEW)
        if name == "import" and manifest is None:
            return StageProgress(NEW, "was interrupted; its sources are read again from the start")
        needed = {"generate": "teacher_base", "filter": "base_model", "sft": "base_model"}.get(name)
        served = name == "generate" and run.teacher_is_served
        if needed and not served and needed not in run.__dict__:
            return _unseen(manifest, "the model is not on this machine, so it is not known whether it has changed")
        now = _eval_identity(run, before) if name == "eval" and looked.assumes_data else STAGES[name].identity(run)
    except (DistillError, OSError, KeyError) as error:
        return StageProgress(DEPENDS, str(error).splitlines()[0])
    assumed = _assumed(looked, name, before, now)
    decision = decide(folder, {**now, **{key: before[key] for key in assumed}}, STAGES[name].grows)
    is_assumed = decision.action == "skip" and bool(assumed) and manifest is not None
    if is_assumed and (changed := changed_settings(run.recipe, name, manifest or {})):
        return _changed(list(changed)) if name != "generate" else StageProgress(PARTLY, "extended")
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


def _eval_identity(run: RunContext, before: Mapping[str, Any]) -> dict[str, Any]:
    """Return eval's identity on the assumption that its problems are unchanged; computing it would load them."""
    assert run.recipe.eval is not None
    said = run.recipe.eval.model_dump(mode="json", exclude={"compute", "held_out", "benchmarks"})
    student = run.finished("sft", "eval")["outputs"][STUDENT]["sha256"]
    return {**before, **said, "student": student, "seed": run.recipe.seed}


def _assumed(looked: _Looked, name: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return the keys of an identity that are assumed unchanged."""
    applies = looked.assumes_packs if name == "filter" else looked.assumes_data
    keys = STAGES[name].FROM_DATASETS if applies else ()
    return [key for key in keys if key in before and key in now]


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
