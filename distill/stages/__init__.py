"""The stages: thin shells (files, processes) around pure cores. They never import each other.

Each stage module has

    VERSION                    raised when the same inputs give another result
    SECTION                    its section of a recipe
    FROM_DATASETS              keys of its identity that only loading datasets could check
    prepare(run, is_due)       finds every model, engine and dataset that it needs, before any stage does work
    identity(run)              everything that decides the result
    check(run)                 verifies stored results
    grows(changed)             whether a changed identity leaves stored results valid
    forget(run)                whether an attempt left nothing worth keeping and may be replaced without --force
    reopen_if_lost(run, force) what of a finished stage is missing or damaged; its folder is made ready to repeat it
    ready(run)                 verifies the inputs from earlier stages
    run(run) -> Summary        does the work
    finish(run)                refuses to continue where the result leaves later stages nothing to do
    headline(metrics)          its result in a line

They share the state of a run in a `RunContext`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from distill.errors import StoreError, UserError
from distill.execution.launchers import Leader
from distill.models.hub import Model, resolve_model
from distill.models.students import Student, find_student, hub_id_of, known_student
from distill.recipe.generate import GenerateConfig
from distill.recipe.lineage import check_lineage, stages_before
from distill.recipe.model import Recipe
from distill.sources.evaluation_sets import Pack, load_packs
from distill.sources.problems import ProblemSets, load_problem_sets
from distill.storage.fingerprints import fingerprint
from distill.storage.run_folder import StageFolder, damaged_outputs

SERVED = "served"
"""Revision of a teacher behind a server, whose real revision is unknown."""


@dataclass(frozen=True)
class RunContext:
    """A recipe and its run folder. Slow lookups are cached."""

    recipe: Recipe
    run_dir: Path
    retry_errors: bool = False
    """Whether to retry samples that ended in errors."""
    leader: Leader | None = None
    """Leads the other processes of a launcher (such as torchrun), if one started this process."""
    needs_weights: bool = True
    """Whether the student's weights are needed; its tokenizer and config are enough to check rows."""

    def folder(self, stage: str) -> StageFolder:
        """Return a stage's folder, which need not exist."""
        return StageFolder(self.run_dir / stage)

    def finished(self, stage: str, wanted_by: str) -> dict[str, Any]:
        """Return the manifest of an earlier stage.

        Raises:
            UserError: that stage is not complete.
        """
        manifest = self.folder(stage).manifest
        if manifest is None:
            raise UserError(
                f"{wanted_by}: needs the results of {stage}, which are not complete in {self.run_dir}. "
                f"Run `distill {stage}` first, or `distill run` for all stages."
            )
        return manifest

    def made_before(self, stage: str, same_split: bool = False) -> dict[str, dict[str, Any]]:
        """Return the manifests of the stages that a stage builds on, after checking that this recipe made them.

        Args:
            stage: the stage.
            same_split: see `distill.recipe.lineage.check_lineage`.

        Returns:
            Stage -> manifest, in running order.

        Raises:
            UserError: a stage is not complete, or the recipe has changed since.
            StoreError: a stage was made from another result of its predecessor than the one that is there now.
        """
        before = stages_before(self.recipe, stage)
        # Training needs only the rows, so a machine may have the filter's folder without the traces' folder.
        needed = before[-1:] if stage == "sft" else before
        found = {name: self.finished(name, stage) for name in reversed(needed)}
        manifests = {name: found.get(name) or self.folder(name).manifest for name in before}
        complete = {name: manifest for name, manifest in manifests.items() if manifest is not None}
        check_lineage(self.recipe, complete, before, stage, same_split)
        return complete

    def verify(self, stage: str, names: Sequence[str], wanted_by: str, way: str) -> None:
        """Check outputs of a finished stage against their checksums.

        Args:
            stage: the finished stage.
            names: of its outputs.
            wanted_by: the command that needs them.
            way: sentence for the error message: how to make them again.

        Raises:
            StoreError: an output is missing, truncated or changed.
        """
        folder = self.folder(stage)
        for name, what in damaged_outputs(
            folder.path, self.finished(stage, wanted_by)["outputs"], names, by_hash=True
        ).items():
            raise StoreError(f"{wanted_by}: {folder.path / name} is not what {stage} left there ({what}). {way}")

    @cached_property
    def problem_sets(self) -> ProblemSets:
        """Return the problems to train on and those to evaluate on.

        Raises:
            ProblemError: a source cannot be loaded, has unusable rows, or nothing is left to train on.
        """
        return load_problem_sets(self.recipe)

    @cached_property
    def student(self) -> Student:
        """Return the student's row of the student table, or a new row for a model that is not in it.

        Raises:
            ModelError: the name is neither an alias nor a possible Hub id or folder.
        """
        return find_student(self.recipe.student)

    @cached_property
    def student_model(self) -> Model:
        """Return the student's local files and revision, downloaded if needed.

        Raises:
            ModelError: it is neither here nor on the Hub, or it is not a causal language model.
        """
        return resolve_model(self.student.hub_id, self.recipe.student_revision, self.needs_weights)

    @property
    def measured_fingerprint(self) -> str:
        """Return the SHA-256 (hex) of the evaluation's questions, which imported traces must not answer."""
        if self.recipe.eval is None:
            return ""
        return fingerprint({"questions": sorted(self.problem_sets.measured_questions)})

    @property
    def generate(self) -> GenerateConfig:
        """Return the recipe's `generate:`.

        Raises:
            UserError: the recipe imports its traces instead.
        """
        if self.recipe.generate is None:
            raise UserError(
                "generate: the recipe has no generate: section; its traces are made elsewhere "
                "(traces:). Import them with `distill import`."
            )
        return self.recipe.generate

    @cached_property
    def evaluation_packs(self) -> list[Pack]:
        """Return the evaluation sets whose problems are dropped (`filter.decontaminate`).

        Raises:
            ProblemError: a name is unknown, or a set cannot be loaded whole.
        """
        return load_packs(self.recipe.filter.decontaminate)

    @property
    def teacher_is_served(self) -> bool:
        """Return whether a server holds the teacher, so that no files of it are needed here."""
        return bool(self.generate.compute.base_urls)

    @cached_property
    def teacher_model(self) -> Model:
        """Return the teacher's local files and revision; for a served teacher only its name, and `SERVED`.

        Raises:
            ModelError: it is neither here nor on the Hub, or it is not a causal language model.
            UserError: the recipe imports its traces instead.
        """
        name = self.generate.teacher
        if self.teacher_is_served:
            return Model(name, Path(), self.generate.revision or SERVED)
        return resolve_model(hub_id_of(name), self.generate.revision)


def never_grows(changed: Mapping[str, tuple[Any, Any]]) -> bool:
    """Return `False`; a `grows` for stages that are redone in full after any change."""
    return False


def nothing_to_check(run: RunContext) -> list[str]:
    """Return no findings; a `check` for stages that rely on the runner's check of file sizes."""
    return []


def nothing_to_read(run: RunContext) -> None:
    """Do nothing; a `ready` for stages that read nothing of earlier ones."""


def always_useful(run: RunContext) -> None:
    """Do nothing; a `finish` for stages after which the next one can always go on."""


def reopen_if_damaged(stage: str) -> Callable[[RunContext, bool], str | None]:
    """Return a `reopen_if_lost` for a stage whose results are simply made again."""

    def reopen(run: RunContext, force: bool) -> str | None:
        folder = run.folder(stage)
        lost = lost_outputs(folder)
        if lost is not None:
            folder.reopen()
        return None if lost is None else f"{lost}; made again"

    return reopen


def lost_outputs(folder: StageFolder, names: Sequence[str] | None = None, by_hash: bool = False) -> str | None:
    """Return which outputs of a finished stage are missing or damaged, in words; `None` if all are as they were."""
    lost = damaged_outputs(folder.path, (folder.manifest or {}).get("outputs", {}), names, by_hash=by_hash)
    return "; ".join(f"{folder.path / output}: {what}" for output, what in lost.items()) or None


def chat_format_of(model_name: str) -> str | None:
    """Return the chat format for a model of the student table that has no template of its own."""
    student = known_student(model_name)
    return None if student is None else student.chat_format
