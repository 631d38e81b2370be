"""The recipe model, and the checks that span stages. Imports no torch.

`distill.recipe.loading` makes a `Recipe` from a file. From a dict:

    Recipe.model_validate({"name": "tiny", "student": "smollm2-135m", "problems": [{"source": "gym:chain_sum"}], …})
"""

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import NonNegativeInt, model_validator

from distill.models.hub_names import Revision
from distill.models.students import find_student
from distill.recipe.base import Name, Strict
from distill.recipe.eval import EvalConfig
from distill.recipe.filter import FilterConfig
from distill.recipe.generate import GenerateConfig
from distill.recipe.lengths import reach_of, with_lengths
from distill.recipe.problems import ProblemSource
from distill.recipe.push import PushConfig
from distill.recipe.sft import SftConfig
from distill.recipe.traces import TraceSource


class Recipe(Strict):
    """Everything that determines what a run produces."""

    schema_version: Literal[1] = 1
    """Version of this schema."""
    name: Name
    """Name of the run; its results go to `runs/<name>/`."""
    description: str = ""
    """Purpose of the recipe, in a line or two."""
    student: str
    """Model to train: an alias (`distill students`), a Hub id (`org/model`) or a local folder (`./model`)."""
    student_revision: Revision | None = None
    """Git revision of the student on the Hub. Default: the main branch."""
    seed: NonNegativeInt = 0
    """Seed of everything random: problems, samples, selection, training order."""
    problems: list[ProblemSource] = []
    """Sources of the problems that the teacher answers."""
    generate: GenerateConfig | None = None
    """Stage 1: sample the teacher."""
    traces: list[TraceSource] = []
    """Stage 1 without a teacher: import existing traces, with the problems that they answer."""
    filter: FilterConfig = FilterConfig()
    """Stage 2: grade and filter the traces."""
    sft: SftConfig = SftConfig()
    """Stage 3: train the student."""
    eval: EvalConfig | None = None
    """Stage 4: evaluate base and student. Default: no evaluation."""
    push: PushConfig | None = None
    """Stage 5: publish on the Hub. Default: nothing is published."""

    @property
    def traces_stage(self) -> str:
        """Return the name of the stage that provides the traces."""
        return "generate" if self.generate is not None else "import"

    @model_validator(mode="before")
    @classmethod
    def _fill_in_lengths(cls, tree: Any) -> Any:
        return with_lengths(tree) if isinstance(tree, Mapping) else tree

    @model_validator(mode="after")
    def _traces_come_from_one_place(self) -> Self:
        if (self.generate is None) == (not self.traces):
            raise ValueError("give either generate: (a teacher answers problems) or traces: (made elsewhere)")
        if self.generate is not None and not self.problems:
            raise ValueError("problems: is missing: the teacher needs problems to answer")
        if self.traces and self.problems:
            raise ValueError("problems: is for generate:; traces: come with their own. Remove one of the two")
        if self.traces and self.eval and self.eval.held_out:
            raise ValueError(
                "eval.held_out is taken from problems:, but traces: come with their own; use eval.benchmarks"
            )
        return self

    @model_validator(mode="after")
    def _stages_agree(self) -> Self:
        problems = list(cross_stage_problems(self))
        if problems:
            raise ValueError("\n".join(problems))
        return self


def cross_stage_problems(recipe: Recipe) -> list[str]:
    """Return the conflicts between stages, each with its keys and how to fix it."""
    found = []
    kept, longest = recipe.filter.max_tokens, recipe.sft.max_length
    if kept is not None and kept > longest:
        found.append(
            f"filter.max_tokens ({kept}) exceeds sft.max_length ({longest}): kept traces would be cut. "
            "Raise sft.max_length or lower filter.max_tokens."
        )
    if recipe.generate is not None:
        found += _teacher_against_student(recipe.generate.sampling.max_tokens, kept, longest)
    if recipe.filter.judge is None and "judge" in {
        *(s.task for s in recipe.problems),
        *(s.task for s in recipe.traces),
    }:
        found.append(
            "task: judge needs a judge: set filter.judge, e.g. "
            "judge: {model: …, compute: {base_urls: [http://localhost:8000/v1]}}."
        )
    if recipe.eval is not None and "judge" in {
        *(s.task for s in recipe.eval.benchmarks),
        *(s.task for s in recipe.problems if recipe.eval.held_out),
    }:
        found.append(
            "task: judge cannot be measured: eval grades by rules alone. Use other problems in eval.benchmarks, or "
            "remove eval.held_out."
        )
    if recipe.traces and kept is None:
        found.append(
            f"filter.max_tokens is not set: traces too long for sft.max_length ({longest}) could be kept. Set "
            f"filter.max_tokens to less than {longest}; the prompt needs room too."
        )
    found += _against_the_context(recipe)
    return found


def _against_the_context(recipe: Recipe) -> list[str]:
    """Return the lengths that exceed the student's context, extended by the rotary embedding's patch if it has one."""
    student, longest = find_student(recipe.student), recipe.sft.max_length
    if student.context is None or student.longest_context is None:
        return []
    found = []
    has_theta = recipe.sft.rope_theta is not None
    if longest > student.longest_context and not has_theta:
        found.append(
            f"sft.max_length ({longest}) exceeds the context of {student.alias} ({student.longest_context} tokens). "
            f"Lower sft.max_length to {student.longest_context} or less, or set sft.rope_theta to train it on longer "
            "rows."
        )
    reach = reach_of(student, longest, has_theta) or student.longest_context
    if recipe.eval is not None and recipe.eval.sampling.max_tokens >= reach:
        way = f" or raise sft.max_length above {student.context}" if reach < student.longest_context else ""
        found.append(
            f"eval.sampling.max_tokens ({recipe.eval.sampling.max_tokens}) leaves no room for a prompt in the context "
            f"of {student.alias} ({reach} tokens). Lower eval.sampling.max_tokens{way}."
        )
    return found


def _teacher_against_student(teacher_max: int, kept: int | None, longest: int) -> list[str]:
    if kept is None and teacher_max > longest:
        why = (
            f"generate.sampling.max_tokens ({teacher_max}) exceeds sft.max_length ({longest}) and filter.max_tokens "
            "is not set: traces too long to train on could be kept. Set filter.max_tokens or raise sft.max_length."
        )
        return [why]
    return []
