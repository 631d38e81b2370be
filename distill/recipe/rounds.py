"""The `rounds:` section: several passes of sampling, filtering and training, each built on earlier ones.

    sft: {method: lora}
    rounds:
      - {name: cold-start, generate: {teacher: org/teacher}, sft: {}}
      - {name: again, generate: {teacher: round:cold-start}, sft: {rows: [this, round:cold-start]}}

Each round becomes a flat recipe (`distill.recipe.model.Recipe.of_round`), so that stages know nothing of rounds.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Self

from pydantic import SerializerFunctionWrapHandler, model_serializer, model_validator

from distill.models.hub_names import Revision
from distill.recipe.base import Name, Strict
from distill.recipe.filter import FilterConfig
from distill.recipe.gates import BASE
from distill.recipe.generate import GenerateConfig
from distill.recipe.lengths import with_lengths
from distill.recipe.rl import RlConfig
from distill.recipe.sft import THIS, SftConfig
from distill.recipe.steps import MAKING_MODELS, STAGE_NAMES
from distill.recipe.traces import ROUND as ROUND
from distill.recipe.traces import TraceSource
from distill.recipe.yaml_tree import KeyPath

SECTIONS = ["generate", "traces", "filter", "sft", "rl"]
"""Sections that a round may have; at the top level they hold defaults for the rounds that name them."""
OWN_SECTIONS: list[str] = []
"""Those of them that are stages of a team's own (`distill.recipe.own_stages`)."""
_FOLDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
Fault = tuple[KeyPath, str]
"""Key path of a mistake, and what is wrong."""


class MisplacedError(ValueError):
    """Mistakes that a check of the whole recipe found, each with the key that is to blame."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__("\n".join(f"{'.'.join(map(str, at))}: {text}" for at, text in faults))
        self.faults = list(faults)


class Round(Strict):
    """One round: a section named here runs in this round, with the top-level section of the same name as defaults."""

    name: Name
    """Name of the round; its results go to `runs/<recipe>/<round>/`."""
    student: str | None = None
    """Model to train: `round:NAME` (what that round made), an alias, a Hub id or a folder. Default: the recipe's."""
    student_revision: Revision | None = None
    """Git revision of the round's own student on the Hub. Default: the main branch."""
    generate: GenerateConfig | None = None
    """Sample a teacher; `teacher: round:NAME` is what an earlier round made."""
    traces: list[TraceSource] = []
    """Import existing traces instead; `source: round:NAME` are the rollouts of an earlier round's `rl:`."""
    filter: FilterConfig | None = None
    """Grade and filter the round's traces. Always done if the round has traces."""
    sft: SftConfig | None = None
    """Train the round's student. A round without `sft:` and `rl:` only makes rows."""
    rl: RlConfig | None = None
    """Improve by reinforcement learning what `sft:` made, or without it the round's student."""
    gate: dict[str, str] = {}
    """Limits on the round's metrics, e.g. `{format_share: ">= 0.9", gain_over: round:NAME}`; if one does not hold, the
    run stops after this round."""

    @model_validator(mode="after")
    def _does_something(self) -> Self:
        if self.name in STAGE_NAMES:
            raise ValueError(f"a round may not be called {self.name!r}: a stage's folder has that name. Rename it")
        if self.name == BASE:
            raise ValueError("a round may not be called 'base': that is the model before any round. Rename it")
        if self.generate is not None and self.traces:
            raise ValueError("give either generate: or traces: in a round, not both. Split it into two rounds")
        if self.generate is None and not self.traces:
            if self.filter is not None:
                raise ValueError("filter: needs traces: add generate: or traces: to this round, or remove filter:")
            if not self.makes_model and not own_stages_of(self):
                raise ValueError("this round does nothing: give it generate:, traces:, sft: or rl:")
        return self

    @property
    def makes_model(self) -> bool:
        return any(getattr(self, name) is not None for name in MAKING_MODELS)

    @property
    def has_traces(self) -> bool:
        return self.generate is not None or bool(self.traces)

    @property
    def student_round(self) -> str | None:
        """Return the round whose model is trained further, or `None`."""
        return round_in(self.student)

    @property
    def teacher_round(self) -> str | None:
        """Return the round whose model is sampled, or `None`."""
        return round_in(self.generate.teacher) if self.generate is not None else None

    @property
    def row_rounds(self) -> list[str]:
        """Return the rounds whose kept rows are trained on, by name."""
        rows = self.sft.rows if self.sft is not None else []
        return [self.name if one == THIS else one.removeprefix(ROUND) for one in rows]

    @model_serializer(mode="wrap")
    def _without_absent_sections(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # A section that is null in a file is one that runs with its defaults, so absent ones must stay absent.
        empty: dict[str, Any] = {"traces": [], "gate": {}}
        return {key: value for key, value in handler(self).items() if value is not None and value != empty.get(key)}


def own_stages_of(part: Strict) -> set[str]:
    """Return the stages of a team's own that a recipe or a round has."""
    return {name for name in OWN_SECTIONS if getattr(part, name) is not None}


def round_in(name: Any) -> str | None:
    """Return the round that a model's name refers to, or `None` if it is another kind of name."""
    return name.removeprefix(ROUND) if isinstance(name, str) and name.startswith(ROUND) else None


def unfold(tree: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a recipe's keys and values with defaults and lengths filled into the rounds.

    Args:
        tree: as in a file, not validated yet; not modified. Malformed parts are left for the validation to report.

    Raises:
        MisplacedError: a top-level section is used by no round.
    """
    rounds = [_plain(one) for one in tree.get("rounds") or ()] if isinstance(tree.get("rounds"), list | tuple) else []
    if not rounds or not all(isinstance(one, dict) for one in rounds):
        return tree
    defaults = {key: tree[key] for key in SECTIONS if tree.get(key) is not None}
    for one in rounds:
        if "generate" in one or one.get("traces"):
            one.setdefault("filter", None)
    unused = [key for key in defaults if not any(key in one for one in rounds)]
    if unused:
        why = "no round names this section, so it would never run. Name it in a round ({}: {{}}), or remove it."
        raise MisplacedError([((key,), why.format(key)) for key in unused])
    for one in rounds:
        for key in SECTIONS:
            if key in one:
                one[key] = _section(_plain(defaults.get(key)), one[key])
    found = {key: value for key, value in tree.items() if key not in SECTIONS}
    longest: list[int] = []
    for one in sorted(rounds, key=lambda one: "sft" not in one):  # whose rows are as long as others' sft: says
        _fill_in_lengths(one, rounds, found, longest)
    if longest and isinstance(found.get("eval"), Mapping):
        found["eval"] = _with_answer_length(dict(found["eval"]), min(longest))
    return {**found, "rounds": rounds}


def _plain(value: Any) -> Any:
    """Return a copy of a section; a model that was made in Python becomes what was set in it."""
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json", exclude_unset=True)
    return dict(value) if isinstance(value, Mapping) else value


def _section(defaults: Any, own: Any) -> Any:
    """Return a round's section: its own keys over the defaults. A section without keys is the defaults."""
    if own is None:
        return {} if defaults is None else defaults
    return _merged(defaults, own)


def _merged(base: Any, over: Any) -> Any:
    if not isinstance(base, Mapping) or not isinstance(over, Mapping):
        return over
    return {**base, **{key: _merged(base[key], value) if key in base else value for key, value in over.items()}}


def _fill_in_lengths(
    one: dict[str, Any], rounds: Sequence[Mapping[str, Any]], top: Mapping[str, Any], longest: list[int]
) -> None:
    """Fill the default lengths into a round, in place, and note how long its student's answers may be."""
    by_name = {str(other.get("name")): other for other in rounds}
    flat = {key: one[key] for key in SECTIONS if key in one}
    flat |= {"student": base_name(one, by_name, top.get("student")), "eval": top.get("eval")}
    if "sft" not in one and (row := row_of_users(one, rounds)) is not None:
        flat["sft"] = {"max_length": row}
    if "sft" not in one and "rl" in one and (learnt := _last_sft(one, by_name)) is not None:
        flat |= {"sft": learnt, "rounds": [learnt]}  # its context is what an earlier round made of it
    generate = one.get("generate")
    teacher = round_in(generate.get("teacher")) if isinstance(generate, Mapping) else None
    if teacher is not None:
        flat["generate"] = {**one["generate"], "teacher": base_name(by_name.get(teacher), by_name, top.get("student"))}
    filled = dict(with_lengths(flat))
    if teacher is not None:
        filled["generate"] = {**filled["generate"], "teacher": f"{ROUND}{teacher}"}
    one.update({key: filled[key] for key in SECTIONS if key in one})
    sampling = filled["eval"].get("sampling") if isinstance(filled["eval"], Mapping) else None
    if (
        any(name in one for name in MAKING_MODELS)
        and isinstance(sampling, Mapping)
        and isinstance(sampling.get("max_tokens"), int)
    ):
        longest.append(sampling["max_tokens"])


def _last_sft(one: Mapping[str, Any], by_name: Mapping[str, Mapping[str, Any]]) -> Any:
    """Return `sft:` of the last round that trained a round's student on traces, or `None`."""
    seen: set[str] = set()
    while (earlier := round_in(one.get("student"))) is not None and earlier in by_name and earlier not in seen:
        seen.add(earlier)
        one = by_name[earlier]
        if one.get("sft") is not None:
            return one["sft"]
    return None


def base_name(one: Mapping[str, Any] | None, by_name: Mapping[str, Mapping[str, Any]], top: Any) -> Any:
    """Return the model that a round's student descends from: a name that is not a round's.

    Args:
        one: the round, as keys and values.
        by_name: all rounds.
        top: the recipe's student, for rounds that name none.
    """
    student = base_round(one, by_name).get("student")
    return top if student is None else student


def base_round(one: Mapping[str, Any] | None, by_name: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the first round of those that a round's student descends from; an empty one if they form a circle."""
    seen: set[str] = set()
    while one is not None:
        earlier = round_in(one.get("student"))
        if earlier is None:
            return one
        if earlier in seen:  # reported by `distill.recipe.round_faults`
            break
        seen.add(earlier)
        one = by_name.get(earlier)
    return {}


def row_of_users(one: Mapping[str, Any], rounds: Sequence[Mapping[str, Any]]) -> int | None:
    """Return the shortest `sft.max_length` of the rounds that train on a round's rows, or `None`."""
    wanted, lengths = f"{ROUND}{one.get('name')}", []
    for other in rounds:
        sft = other.get("sft")
        if isinstance(sft, Mapping) and wanted in (sft.get("rows") or ()) and isinstance(sft.get("max_length"), int):
            lengths.append(sft["max_length"])
    return min(lengths, default=None)


def _with_answer_length(section: dict[str, Any], max_tokens: int) -> dict[str, Any]:
    sampling = section.get("sampling", {})
    if not isinstance(sampling, Mapping) or "max_tokens" in sampling:
        return section
    return {**section, "sampling": {**sampling, "max_tokens": max_tokens}}
