"""The stages: thin shells (files, processes) around pure cores. They never import each other.

Each module has `VERSION` (raised when the same inputs give another result), `identity(run)` (what decides the result)
and `run(run) -> Summary`. What they share of a run is `RunContext`.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from distill.errors import UserError
from distill.hub import Model, resolve_model
from distill.problems import ProblemSets, load_problem_sets
from distill.recipe import Recipe
from distill.store import StageFolder
from distill.students import STUDENTS, Student, find_student

# Files that one stage leaves for another, relative to the stage's folder.
PROBLEMS = "problems.jsonl"
LEDGER = "ledger.jsonl"
TRACES = "traces/train-00000-of-00001.parquet"
KEPT = "kept/train-00000-of-00001.parquet"
DROPPED = "dropped/train-00000-of-00001.parquet"
VERDICTS = "verdicts.jsonl"
STUDENT = "student"


@dataclass(frozen=True)
class RunContext:
    """A recipe at work in its run folder; what is slow to find out is found out once."""

    recipe: Recipe
    run_dir: Path

    def folder(self, stage: str) -> StageFolder:
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

    @cached_property
    def problem_sets(self) -> ProblemSets:
        return load_problem_sets(self.recipe)

    @cached_property
    def student(self) -> Student:
        return find_student(self.recipe.student)

    @cached_property
    def student_model(self) -> Model:
        return resolve_model(self.student.hub_id, self.recipe.student_revision)

    @cached_property
    def teacher_model(self) -> Model:
        name = self.recipe.generate.teacher
        hub_id = STUDENTS[name].hub_id if name in STUDENTS else name
        return resolve_model(hub_id, self.recipe.generate.revision)


def chat_format_of(model_name: str) -> str | None:
    """The template for a model of the student table that has none of its own."""
    return next((s.chat_format for s in STUDENTS.values() if s.hub_id == model_name), None)
