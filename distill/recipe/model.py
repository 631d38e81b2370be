"""The recipe model, and the checks that span stages and rounds. Imports no torch.

`distill.recipe.loading` makes a `Recipe` from a file. From a dict:

    Recipe.model_validate({"name": "tiny", "student": "smollm2-135m", "problems": [{"source": "gym:chain_sum"}], …})
"""

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, Literal, Self

from pydantic import NonNegativeInt, SerializerFunctionWrapHandler, ValidationError, model_serializer, model_validator

from distill.models.hub_names import Revision
from distill.models.students import Student, find_student, known_student
from distill.recipe.base import Name, Strict
from distill.recipe.eval import EvalConfig
from distill.recipe.filter import FilterConfig
from distill.recipe.generate import GenerateConfig
from distill.recipe.lengths import reach_of, with_lengths
from distill.recipe.problems import ProblemSource
from distill.recipe.push import PushConfig
from distill.recipe.rl import RlConfig
from distill.recipe.rl_faults import rl_problems
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
from distill.recipe.sandbox import SandboxConfig
from distill.recipe.sft import THIS, SftConfig
from distill.recipe.steps import MAKING_MODELS, STAGE_NAMES
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
    """Model to train: an alias (`distill students`), a Hub id (`org/model`) or a local folder (`./model`). Not
    needed if nothing is trained: `eval.models` are evaluated."""
    student_revision: Revision | None = None
    """Git revision of the student on the Hub. Default: the main branch."""
    seed: NonNegativeInt = 0
    """Seed of everything random: problems, samples, selection, training order."""
    problems: list[ProblemSource] = []
    """Sources of the problems that the teacher answers, and that `rl:` trains on."""
    generate: GenerateConfig | None = None
    """Stage 1: sample the teacher."""
    traces: list[TraceSource] = []
    """Stage 1 without a teacher: import existing traces, with the problems that they answer."""
    filter: FilterConfig = FilterConfig()
    """Stage 2: grade and filter the traces."""
    sft: SftConfig = SftConfig()
    """Stage 3: train the student."""
    rl: RlConfig | None = None
    """Stage 4: improve the student by reinforcement learning; without `generate:` and `traces:`, the base itself.
    Default: none."""
    rounds: list[Round] = []
    """Several passes of these stages, each built on earlier ones. Default: one pass."""
    eval: EvalConfig | None = None
    """Stage 5: evaluate base and student. Default: no evaluation."""
    push: PushConfig | None = None
    """Stage 6: publish on the Hub. Default: nothing is published."""
    sandbox: SandboxConfig = SandboxConfig()
    """Where the programs of `task: code` run."""

    @property
    def traces_stage(self) -> str:
        """Return the name of the stage that provides the traces."""
        return "import" if self.traces else "generate"

    @property
    def stage_names(self) -> list[str]:
        """Return the stages of a recipe without rounds, or of one round, in order."""
        has = {self.traces_stage, "filter", MAKING_MODELS[0]} if self.has_traces else set()
        has |= _reinforcing(self)
        has |= {"eval"} if self.eval and not self.only_measures else set()
        has |= own_stages_of(self) | ({"push"} if self.push else set())
        has |= {"measure"} if self.eval and self.eval.models else set()
        return [name for name in STAGE_NAMES if name in has]

    @property
    def only_measures(self) -> bool:
        """Return whether the recipe trains nothing, and only has models to evaluate."""
        trains = bool(self.rounds) or self.has_traces or self.rl is not None
        return not trains and bool(self.eval and self.eval.models)

    @property
    def has_traces(self) -> bool:
        return self.generate is not None or bool(self.traces)

    @property
    def trains(self) -> bool:
        """Return whether a student is trained on traces."""
        return MAKING_MODELS[0] in self.stage_names

    @property
    def making_stage(self) -> str | None:
        """Return the stage that makes the model which is evaluated and published; `None`: none does."""
        return next((name for name in reversed(self.stage_names) if name in MAKING_MODELS), None)

    @property
    def measures(self) -> bool:
        """Return whether base and student are evaluated."""
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
    def rollout_rounds(self) -> list[str]:
        """Return the rounds whose rollouts are imported, by name."""
        return list(dict.fromkeys(one.round for one in self.traces if one.round is not None))

    @property
    def row_rounds(self) -> list[str | None]:
        """Return the rounds whose kept rows are trained on; `None` stands for a recipe without rounds."""
        return [None] if self.has_traces or self.rl is None else []

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
        return unfold(tree) if tree.get("rounds") else with_lengths(_with_student(tree))

    @model_validator(mode="after")
    def _traces_come_from_one_place(self) -> Self:
        if self.rounds or self.only_measures:
            return self
        if (self.generate is not None and self.traces) or not (self.has_traces or self.rl):
            raise ValueError(
                "give either generate: (a teacher answers problems) or traces: (made elsewhere); or only rl:, to train "
                "a base on problems: without traces; or only eval: with eval.models, to evaluate models"
            )
        if self.generate is not None and not self.problems:
            raise ValueError("problems: is missing: the teacher needs problems to answer")
        if self.traces and self.problems and self.rl is None:
            raise ValueError("problems: is for generate: and rl:; traces: come with their own. Remove one of the two")
        if self.traces and not self.problems and self.eval and self.eval.held_out:
            raise ValueError(
                "eval.held_out is taken from problems:, but traces: come with their own; use eval.benchmarks"
            )
        if self.sft.rows != [THIS]:
            raise ValueError("sft.rows names rounds, but the recipe has no rounds:. Remove it, or add rounds:")
        if self.rollout_rounds:
            raise ValueError(
                f"traces: round:{self.rollout_rounds[0]} names a round, but the recipe has no rounds:. Name a file or "
                "a data set, or add rounds:"
            )
        if self.push is not None and self.push.round is not None:
            raise ValueError("push.round names a round, but the recipe has no rounds:. Remove it, or add rounds:")
        if any(source.rounds for source in self.problems):
            raise ValueError("problems: rounds names rounds, but the recipe has none. Remove it, or add rounds:")
        return self

    @model_validator(mode="after")
    def _has_what_it_measures(self) -> Self:
        if self.rounds and self.eval and self.eval.models:
            raise ValueError(
                "eval.models is for recipes without rounds:; evaluate other models with `distill eval --model`"
            )
        if self.only_measures:
            assert self.eval is not None
            if self.eval.held_out or self.problems:
                raise ValueError("without training nothing is held out: use eval.benchmarks in place of problems:")
            if self.push is not None:
                raise ValueError("push: publishes a student, and this recipe trains none. Remove it")
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


def _with_student(tree: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a recipe's keys and values; one that only measures takes its lengths from the first model."""
    section = tree.get("eval")
    models = section.get("models") if isinstance(section, Mapping) else getattr(section, "models", None)
    has_rows = tree.get("generate") is not None or tree.get("traces")
    if "student" in tree or has_rows or not isinstance(models, list) or not models:
        return tree
    return {**tree, "student": models[0]}


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
        makers = ({MAKING_MODELS[0]} if self.of.trains else set()) | _reinforcing(self)
        if makers:
            has |= makers | ({"eval"} if self.eval else set()) | ({"push"} if self.push else set())
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


def _reinforcing(recipe: Recipe) -> set[str]:
    return set() if recipe.rl is None else {MAKING_MODELS[-1]}


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
    tree["problems"] = [source.model_dump(mode="json") for source in filter(used_in(one.name), recipe.problems)]
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
        tree["eval"] = part["eval"]
        used = [place for place, source in enumerate(recipe.problems) if used_in(one["name"])(source)]
        if len(used) == len(part["problems"]):
            for place, source in zip(used, part["problems"], strict=True):
                tree["problems"][place] = source
        elif len(used) == len(recipe.problems):
            tree["problems"] = part["problems"] or tree["problems"]
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
    return next((one.name for one in reversed(recipe.rounds) if one.makes_model), None)


def _run_faults(recipe: Recipe) -> list[Fault]:
    """Return what is wrong between the rounds and the sections of the whole run."""
    found: list[Fault] = []
    makers = [one.name for one in recipe.rounds if one.makes_model]
    found += _source_faults(recipe)
    if recipe.eval is not None and recipe.eval.held_out and not recipe.problems:
        found.append((("eval", "held_out"), "is taken from problems:, which is missing; use eval.benchmarks."))
    elif recipe.eval is not None and recipe.eval.held_out and all(source.rounds for source in recipe.problems):
        why = "is taken from sources of problems: that all rounds use, and each names its rounds:. Leave rounds: out"
        found.append((("eval", "held_out"), f"{why} of one source, or use eval.benchmarks."))
    if recipe.eval is not None and not makers:
        found.append((("eval",), "no round makes a model that could be measured: none has sft: or rl:."))
    if recipe.push is not None and not makers:
        found.append((("push",), "no round makes a model that could be published: none has sft: or rl:."))
    elif recipe.push is not None and recipe.push.round is not None and recipe.push.round not in makers:
        there = ", ".join(makers)
        found.append((("push", "round"), f"no round {recipe.push.round!r} makes a model. Rounds that do: {there}."))
    return found


def _source_faults(recipe: Recipe) -> list[Fault]:
    """Return what is wrong with the rounds that sources of problems name, and which rounds are left without any."""
    found: list[Fault] = []
    names = [one.name for one in recipe.rounds]
    asks = [one.name for one in recipe.rounds if one.generate is not None or one.rl is not None]
    for place, source in enumerate(recipe.problems):
        for number, name in enumerate(source.rounds):
            if name not in names:
                why = f"there is no round {name!r}. There are: {', '.join(names)}."
                found.append((("problems", place, "rounds", number), why))
            elif name not in asks:
                why = f"round {name!r} asks no problems: it has neither generate: nor rl:. Rounds that do: "
                found.append((("problems", place, "rounds", number), f"{why}{', '.join(asks) or 'none'}."))
    for place, one in enumerate(recipe.rounds):
        if recipe.problems and one.name in asks and not any(map(used_in(one.name), recipe.problems)):
            why = "every source of problems: names other rounds, so that this one has none. Name it in rounds: of one."
            found.append((("rounds", place), why))
    return found


def used_in(name: str) -> Callable[[ProblemSource], bool]:
    """Return a function that tells whether a round uses a source of problems."""
    return lambda source: not source.rounds or name in source.rounds


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
    if (
        recipe.has_traces
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
        *(s.task for s in recipe.eval.benchmarks if not s.is_judged),
        *(s.task for s in recipe.problems if recipe.eval.held_out and not s.rounds),
    }:
        found.append(
            "task: judge cannot be measured: without a metric for judged answers, eval grades by rules alone. Set the "
            "benchmark's metric: short-answers, use other problems, give their source rounds: of its own, or remove "
            "eval.held_out."
        )
    if recipe.traces and kept is None:
        found.append(
            f"filter.max_tokens is not set: traces too long for sft.max_length ({longest}) could be kept. Set "
            f"filter.max_tokens to less than {longest}; the prompt needs room too."
        )
    found += _against_the_context(recipe)
    return [*found, *rl_problems(recipe)]


def _against_the_context(recipe: Recipe) -> list[str]:
    """Return the lengths that exceed a model's context; the student's is extended by its rotary embedding's patch."""
    models = recipe.eval.models if recipe.eval is not None else []
    found = [line for one in map(known_student, models) if one for line in _answers_against(recipe, one, one.context)]
    if recipe.only_measures:
        return found
    student, longest = find_student(recipe.student), recipe.sft.max_length
    if student.context is None or student.longest_context is None:
        return found
    has_theta = recipe.sft.rope_theta is not None
    if longest > student.longest_context and not has_theta:
        found.append(
            f"sft.max_length ({longest}) exceeds the context of {student.alias} ({student.longest_context} tokens). "
            f"Lower sft.max_length to {student.longest_context} or less, or set sft.rope_theta to train it on longer "
            "rows."
        )
    # Reinforcement learning alone changes no context, but an earlier round may have made it longer.
    grows = recipe.rl is None or recipe.trains or recipe.student_round is not None
    reach = (reach_of(student, longest, has_theta) if grows else student.context) or student.longest_context
    can_grow = recipe.trains and reach < student.longest_context
    way = f" or raise sft.max_length above {student.context}" if can_grow else ""
    if recipe.rl is not None and recipe.rl.max_tokens >= reach:
        found.append(
            f"rl.max_tokens ({recipe.rl.max_tokens}) leaves no room for a prompt in the context of {student.alias} "
            f"({reach} tokens). Lower rl.max_tokens{way}."
        )
    return found + _answers_against(recipe, student, reach, way)


def _answers_against(recipe: Recipe, model: Student, reach: int | None, way: str = "") -> list[str]:
    """Return the longest answers of the evaluation that a model's context has no room for."""
    found = []
    if recipe.eval is not None and reach is not None:
        room = f"leaves no room for a prompt in the context of {model.alias} ({reach} tokens)"
        if recipe.eval.sampling.max_tokens >= reach:
            found.append(
                f"eval.sampling.max_tokens ({recipe.eval.sampling.max_tokens}) {room}. Lower "
                f"eval.sampling.max_tokens{way}."
            )
        for number, one in enumerate(recipe.eval.benchmarks):
            if one.sampling.max_tokens is not None and one.sampling.max_tokens >= reach:
                said = f", as protocol {recipe.eval.protocol} asks for," if recipe.eval.protocol else ""
                found.append(
                    f"eval.benchmarks.{number}.sampling.max_tokens ({one.sampling.max_tokens}){said} {room}. Set a "
                    f"lower one for this benchmark, which makes it another protocol{way}."
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
