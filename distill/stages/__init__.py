"""The stages: thin shells (files, processes) around pure cores. They never import each other.

Each module has `VERSION` (raised when the same inputs give another result), `identity(run)` (what decides the result),
`check(run)` (verifies what is stored), `grows(changed)` (whether a change leaves it valid), `forget(run)` (whether an
attempt has left nothing worth keeping, which is cleared away then), `ready(run)` (verifies what it is about to read of
the stages before) and `run(run) -> Summary`. What they share of a run is `RunContext`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from distill.errors import StoreError, UserError
from distill.execution.launchers import Leader
from distill.models.hub import Model, resolve_model
from distill.models.students import STUDENTS, Student, find_student
from distill.recipe.generate import GenerateConfig
from distill.recipe.lineage import check_made_by, stages_before
from distill.recipe.model import Recipe
from distill.sources.evaluation_sets import Pack, load_packs
from distill.sources.problems import ProblemSets, load_problem_sets
from distill.storage.fingerprints import fingerprint
from distill.storage.layout import TRACES
from distill.storage.run_folder import StageFolder, damaged_outputs

# Files that one stage leaves for another, relative to the stage's folder.

SERVED = "served"
"""Stands for the revision of a teacher behind a server, which does not tell."""


@dataclass(frozen=True)
class RunContext:
    """A recipe at work in its run folder; what is slow to find out is found out once."""

    recipe: Recipe
    run_dir: Path
    retry_errors: bool = False
    """Whether samples that ended in errors are asked for again."""
    leader: Leader | None = None
    """Of the processes that a launcher has started, if any: those that train along."""
    needs_weights: bool = True
    """Whether the student's weights must be here; its tokenizer and config are enough to check rows."""

    def folder(self, stage: str) -> StageFolder:
        """Where a stage keeps its files, whether it has begun or not."""
        return StageFolder(self.run_dir / stage)

    def finished(self, stage: str, wanted_by: str) -> dict[str, Any]:
        """The manifest of an earlier stage.

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
        """The manifests of the stages that a stage rests on, in order, once it is sure that this recipe has made them.

        Args:
            stage: the stage.
            same_split: see `distill.recipe.lineage.check_made_by`.

        Raises:
            UserError: one is not complete, or the recipe has changed since.
            StoreError: one was made from something else than the one before it holds now.
        """
        before = stages_before(self.recipe, stage)
        # Rows can be trained on where nothing but them has been brought.
        needed = before[-1:] if stage == "sft" else before
        found = {name: self.finished(name, stage) for name in reversed(needed)}
        manifests = {name: found.get(name) or self.folder(name).manifest for name in before}
        complete = {name: manifest for name, manifest in manifests.items() if manifest is not None}
        check_made_by(self.recipe, complete, before, stage, same_split)
        return complete

    def verify(self, stage: str, names: Sequence[str], wanted_by: str, way: str) -> None:
        """Read outputs of a finished stage whole, before something rests on them.

        Args:
            stage: whose they are.
            names: of the outputs.
            wanted_by: the command that needs them.
            way: to have them again, as a sentence.

        Raises:
            StoreError: one is gone, cut or changed since the stage left it.
        """
        folder = self.folder(stage)
        for name, what in damaged_outputs(
            folder.path, self.finished(stage, wanted_by)["outputs"], names, by_hash=True
        ).items():
            raise StoreError(f"{wanted_by}: {folder.path / name} is not what {stage} left there ({what}). {way}")

    @cached_property
    def problem_sets(self) -> ProblemSets:
        """The problems to train on and those to measure on.

        Raises:
            ProblemError: a source cannot be loaded, has unusable rows, or nothing is left to train on.
        """
        return load_problem_sets(self.recipe)

    @cached_property
    def student(self) -> Student:
        """The student's row of the student table, or one made for a model that is not in it.

        Raises:
            ModelError: neither an alias nor anything that could be a Hub id or a folder.
        """
        return find_student(self.recipe.student)

    @cached_property
    def student_model(self) -> Model:
        """The student's files on this disk and their revision, fetched where they are not here.

        Raises:
            ModelError: it is neither here nor to be had from the Hub, or it is no causal language model.
        """
        return resolve_model(self.student.hub_id, self.recipe.student_revision, self.needs_weights)

    @property
    def measured_fingerprint(self) -> str:
        """SHA-256 (hex) of the evaluation's questions, which imported traces must not answer."""
        if self.recipe.eval is None:
            return ""
        return fingerprint({"questions": sorted(self.problem_sets.measured_questions)})

    @property
    def generate(self) -> GenerateConfig:
        """How the teacher is sampled.

        Raises:
            UserError: the recipe takes in traces made elsewhere.
        """
        if self.recipe.generate is None:
            raise UserError(
                "generate: the recipe has no generate: section; its traces are made elsewhere "
                "(traces:). Take them in with `distill import`."
            )
        return self.recipe.generate

    @cached_property
    def evaluation_packs(self) -> list[Pack]:
        """The evaluation sets that traces are kept clean of (`filter.decontaminate`).

        Raises:
            ProblemError: an unknown name, or a set that cannot be loaded whole.
        """
        return load_packs(self.recipe.filter.decontaminate)

    @property
    def teacher_is_served(self) -> bool:
        """Whether somebody else's process holds the teacher, so that nothing of it need be here."""
        return bool(self.generate.compute.base_urls)

    @cached_property
    def teacher_model(self) -> Model:
        """The teacher's files on this disk and their revision; of a served one its name alone, and `SERVED`.

        Raises:
            ModelError: it is neither here nor to be had from the Hub, or it is no causal language model.
            UserError: the recipe takes in traces made elsewhere.
        """
        name = self.generate.teacher
        if self.teacher_is_served:
            return Model(name, Path(), self.generate.revision or SERVED)
        hub_id = STUDENTS[name].hub_id if name in STUDENTS else name
        return resolve_model(hub_id, self.generate.revision)


def never_grows(changed: Mapping[str, tuple[Any, Any]]) -> bool:
    """For a stage whose result is remade whole when anything about it changes."""
    return False


def nothing_to_check(run: RunContext) -> list[str]:
    """For a stage that verifies nothing of what is stored beyond the sizes that the runner looks at."""
    return []


def nothing_to_read(run: RunContext) -> None:
    """For a stage that reads nothing of the stages before."""


def remake_damaged(run: RunContext, stage: str, names: Sequence[str] | None, again: str) -> list[str]:
    """Take a finished stage back to *not complete* where one of its outputs is gone, cut or changed; that, in words.

    Args:
        run: the recipe and its folder.
        stage: the stage.
        names: of the outputs to read; left out: all.
        again: what happens now, as a clause.
    """
    folder = run.folder(stage)
    manifest = folder.manifest
    damaged = {} if manifest is None else damaged_outputs(folder.path, manifest["outputs"], names)
    if damaged:
        folder.reopen()
    return [f"{folder.path / name}: damaged ({what}); {again}" for name, what in damaged.items()]


def traces_fingerprint(generated: Mapping[str, Any]) -> str:
    """SHA-256 (hex) over the traces of a finished generate stage, from its manifest."""
    return fingerprint({n: o["sha256"] for n, o in generated["outputs"].items() if n.startswith(f"{TRACES}/")})


def chat_format_of(model_name: str) -> str | None:
    """The template for a model of the student table that has none of its own."""
    return next((s.chat_format for s in STUDENTS.values() if s.hub_id == model_name), None)
