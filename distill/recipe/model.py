"""The recipe model, and the checks that span stages and rounds. Imports no torch.

`distill.recipe.loading` makes a `Recipe` from a file. From a dict:

    Recipe.model_validate({"name": "tiny", "student": "smollm2-135m", "problems": [{"source": "gym:chain_sum"}], …})
"""

from collections.abc import Mapping
from functools import cached_property
from typing import Any, Literal, Self

from pydantic import NonNegativeInt, SerializerFunctionWrapHandler, ValidationError, model_serializer, model_validator

from distill.models.hub_names import Revision
from distill.models.students import find_student
from distill.recipe.base import Name, Strict
from distill.recipe.eval import EvalConfig
from distill.recipe.filter import FilterConfig
from distill.recipe.generate import GenerateConfig
from distill.recipe.lengths import reach_of, with_lengths
from distill.recipe.problems import ProblemSource
from distill.recipe.push import PushConfig
from distill.recipe.round_faults import faults
from distill.recipe.rounds import (
    SECTIONS,
    Fault,
    MisplacedError,
    Round,
    base_name,
    base_round,
    own_stages_of,
    round_in,
    row_of_users,
    unfold,
)
from distill.recipe.sft import THIS, SftConfig
from distill.recipe.steps import STAGE_NAMES
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
    rounds: list[Round] = []
    """Several passes of these stages, each built on earlier ones. Default: one pass."""
    eval: EvalConfig | None = None
    """Stage 4: evaluate base and student. Default: no evaluation."""
    push: PushConfig | None = None
    """Stage 5: publish on the Hub. Default: nothing is published."""

    @property
    def traces_stage(self) -> str:
        """Return the name of the stage that provides the traces."""
        return "import" if self.traces else "generate"

    @property
    def stage_names(self) -> list[str]:
        """Return the stages of a recipe without rounds, or of one round, in order."""
        has = {self.traces_stage, "filter", "sft"} | ({"eval"} if self.eval else set())
        has |= own_stages_of(self) | ({"push"} if self.push else set())
        return [name for name in STAGE_NAMES if name in has]

    @property
    def trains(self) -> bool:
        """Return whether a student is trained."""
        return "sft" in self.stage_names

    @property
    def measures(self) -> bool:
        """Return whether models are evaluated."""
        return "eval" in self.stage_names

    @property
    def round_name(self) -> str | None:
        """Return the name of the round that this is a part of, or `None` in a recipe without rounds."""
        return None

    @property
    def student_round(self) -> str | None:
        """Return the round whose model is trained further; `None`: `student` itself is trained."""
        return None

    @property
    def teacher_round(self) -> str | None:
        """Return the round whose model is the teacher; `None`: `generate.teacher` itself is."""
        return None

    @property
    def row_rounds(self) -> list[str | None]:
        """Return the rounds whose kept rows are trained on; `None` stands for a recipe without rounds."""
        return [None]

    @cached_property
    def parts(self) -> list["Recipe"]:
        """Return the rounds as recipes without rounds, in order; only the recipe itself if it has no rounds."""
        return [_part(self, place) for place in range(len(self.rounds))] or [self]

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy, with some fields replaced and not validated."""
        made = super().model_copy(update=update, deep=deep)
        made.__dict__.pop("parts", None)  # pydantic copies cached properties too
        return made

    def part(self, name: str) -> "Recipe":
        """Return one round as a recipe without rounds."""
        return next(one for one in self.parts if one.round_name == name)

    @model_serializer(mode="wrap")
    def _without_unused_sections(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Beside rounds: the sections are merged into the rounds; without rounds, no key says that there are none.
        unused = SECTIONS if self.rounds else ("rounds",)
        return {key: value for key, value in handler(self).items() if key not in unused}

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, tree: Any) -> Any:
        if not isinstance(tree, Mapping):
            return tree
        return unfold(tree) if tree.get("rounds") else with_lengths(tree)

    @model_validator(mode="after")
    def _traces_come_from_one_place(self) -> Self:
        if self.rounds:
            return self
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
        if self.sft.rows != [THIS]:
            raise ValueError("sft.rows names rounds, but the recipe has no rounds:. Remove it, or add rounds:")
        if self.push is not None and self.push.round is not None:
            raise ValueError("push.round names a round, but the recipe has no rounds:. Remove it, or add rounds:")
        return self

    @model_validator(mode="after")
    def _stages_agree(self) -> Self:
        problems = [] if self.rounds else list(cross_stage_problems(self))
        if problems:
            raise ValueError("\n".join(problems))
        return self

    @model_validator(mode="after")
    def _rounds_agree(self) -> Self:
        if not self.rounds:
            return self
        found = [*faults(self.rounds, self.eval is not None), *_run_faults(self)]
        if not found:
            for place in range(len(self.rounds)):
                try:
                    _part(self, place)
                except ValidationError as error:
                    found += [((("rounds", place, *one["loc"])), _message(one)) for one in error.errors()]
        if found:
            raise MisplacedError(found)
        return self


class Part(Strict):
    """What makes a recipe one round of a larger one."""

    name: Name
    """Name of the round."""
    trains: bool
    """Whether it has `sft:`."""
    student: str | None = None
    """The round whose model is trained further."""
    teacher: str | None = None
    """The round whose model is the teacher."""
    rows: list[str] = []
    """The rounds whose rows are trained on."""


class RoundRecipe(Recipe):
    """One round as a recipe without rounds; `student` and `generate.teacher` are the models that it descends from."""

    of: Part
    """Which round it is, and what it takes from others."""

    @property
    def stage_names(self) -> list[str]:
        """Return the stages of the round, in order."""
        has = own_stages_of(self)
        has |= {self.traces_stage, "filter"} if self.generate is not None or self.traces else set()
        if self.of.trains:
            has |= {"sft"} | ({"eval"} if self.eval else set()) | ({"push"} if self.push else set())
        return [name for name in STAGE_NAMES if name in has]

    @property
    def round_name(self) -> str | None:
        return self.of.name

    @property
    def student_round(self) -> str | None:
        return self.of.student

    @property
    def teacher_round(self) -> str | None:
        return self.of.teacher

    @property
    def row_rounds(self) -> list[str | None]:
        return [*self.of.rows]

    @model_validator(mode="after")
    def _traces_come_from_one_place(self) -> Self:
        if self.generate is not None and not self.problems:
            raise ValueError("problems: is missing: the teacher needs problems to answer")
        return self


def recipe_of_tree(tree: Any) -> Recipe:
    """Return the recipe in a manifest or a summary, which may be that of one round.

    Raises:
        ValidationError: this version of distill cannot read it.
    """
    is_part = isinstance(tree, Mapping) and "of" in tree
    return (RoundRecipe if is_part else Recipe).model_validate(tree)


def _part(recipe: Recipe, place: int) -> RoundRecipe:
    """Return a round as a recipe without rounds.

    Raises:
        ValidationError: its sections conflict.
    """
    one = recipe.rounds[place]
    by_name = {other.name: other.model_dump(mode="json") for other in recipe.rounds}
    origin = base_round(by_name[one.name], by_name)
    base = origin.get("student") or recipe.student
    tree = recipe.model_dump(mode="json", exclude={"rounds", "student_revision"})
    tree |= {key: value for key, value in by_name[one.name].items() if key in SECTIONS}
    if one.teacher_round is not None:
        tree["generate"]["teacher"] = base_name(by_name[one.teacher_round], by_name, recipe.student)
    if one.sft is None and (longest := row_of_users(by_name[one.name], [*by_name.values()])) is not None:
        tree["sft"] = {"max_length": longest}
    if recipe.push is None or published_round(recipe) != one.name:
        tree["push"] = None
    return RoundRecipe.model_validate(
        {
            **tree,
            "student": base,
            "student_revision": origin.get("student_revision")
            or (recipe.student_revision if base == recipe.student else None),
            "of": {
                "name": one.name,
                "trains": one.sft is not None,
                "student": one.student_round,
                "teacher": one.teacher_round,
                "rows": one.row_rounds,
            },
        }
    )


def with_parts(recipe: Recipe, parts: Mapping[str, Recipe]) -> Recipe:
    """Return a recipe with what its rounds have; as it is, if that conflicts.

    Args:
        recipe: the whole recipe.
        parts: each round as a recipe without rounds, such as the one that its results were made with.
    """
    tree = recipe.model_dump(mode="json")
    for one in tree["rounds"]:
        part = parts[one["name"]].model_dump(mode="json")
        tree["problems"], tree["eval"] = part["problems"] or tree["problems"], part["eval"]
        teacher = (one.get("generate") or {}).get("teacher")
        one.update({key: part[key] for key in SECTIONS if key in one})
        if round_in(teacher) is not None:
            one["generate"] |= {"teacher": teacher, "revision": None}
        if part["student"] == recipe.student:
            tree["student_revision"] = part["student_revision"] or tree["student_revision"]
        elif round_in(one.get("student")) is None:
            one["student_revision"] = part["student_revision"]
    try:
        return Recipe.model_validate(tree)
    except ValidationError:
        return recipe


def published_round(recipe: Recipe) -> str | None:
    """Return the round whose model is published: `push.round`, else the last one that makes a model."""
    if recipe.push is not None and recipe.push.round is not None:
        return recipe.push.round
    return next((one.name for one in reversed(recipe.rounds) if one.sft is not None), None)


def _run_faults(recipe: Recipe) -> list[Fault]:
    """Return what is wrong between the rounds and the sections of the whole run."""
    found: list[Fault] = []
    makers = [one.name for one in recipe.rounds if one.sft is not None]
    if recipe.eval is not None and recipe.eval.held_out and not recipe.problems:
        found.append((("eval", "held_out"), "is taken from problems:, which is missing; use eval.benchmarks."))
    if recipe.eval is not None and not makers:
        found.append((("eval",), "no round makes a model that could be measured: none has sft:."))
    if recipe.push is not None and not makers:
        found.append((("push",), "no round makes a model that could be published: none has sft:."))
    elif recipe.push is not None and recipe.push.round is not None and recipe.push.round not in makers:
        there = ", ".join(makers)
        found.append((("push", "round"), f"no round {recipe.push.round!r} makes a model. Rounds that do: {there}."))
    return found


def _message(details: Any) -> str:
    return str(details["msg"]).removeprefix("Value error, ")


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
    has_traces = recipe.generate is not None or bool(recipe.traces)
    if (
        has_traces
        and recipe.filter.judge is None
        and "judge"
        in {
            *(s.task for s in recipe.problems),
            *(s.task for s in recipe.traces),
        }
    ):
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
