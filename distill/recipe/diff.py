"""Comparison of recipes by meaning: defaults are written out, and equivalent names count as equal."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from distill.core.file_kinds import MISSING, kind_of
from distill.errors import RecipeError
from distill.models.students import LORA_LEARNING_RATE, find_student, hub_id_of
from distill.recipe.loading import read_recipe
from distill.recipe.mistakes import explain
from distill.recipe.model import Recipe, recipe_of_tree
from distill.recipe.rounds import SECTIONS
from distill.recipe.sft import Lora
from distill.recipe.sources import FILE
from distill.storage.files import read_json
from distill.storage.fingerprints import differences, sha256_of
from distill.storage.layout import SUMMARY

Effect = Literal["result", "compute", "neither"]
EFFECTS: dict[Effect, str] = {
    "result": "changes the result",
    "compute": "changes where and how it is computed, not what it means",
    "neither": "changes names, prices and publishing alone",
}
_NEITHER = ("name", "description", "schema_version", "push", "generate.price")
_UNORDERED = ("base_urls", "tracking", "target_modules")
MAX_SHOWN_CHARS = 80


@dataclass(frozen=True, slots=True)
class Difference:
    """One key whose values differ. Example: `Difference("sft.epochs", 3.0, 2.0, "result")`."""

    key: str
    """Dotted key; an entry of a list of sources is named by its source."""
    before: Any
    after: Any
    effect: Effect


def recipe_of(reference: str, runs_dir: Path) -> tuple[str, Recipe]:
    """Return a label and the recipe that a reference names, or that a run was made with.

    Args:
        reference: a recipe's reference, a run's folder, or a run's name if no recipe has that name.
        runs_dir: folder of runs.

    Raises:
        RecipeError: it is neither a recipe nor a run.
    """
    for folder in (Path(reference), runs_dir / reference):
        if folder == Path(reference) or kind_of(Path(reference)) == MISSING:
            summary = read_json(folder / SUMMARY) if kind_of(folder) == "a folder" else None
            if isinstance(summary, dict) and (folder == Path(reference) or not _is_recipe(reference)):
                return f"the run {folder}", _ran(folder, summary)
    return reference, read_recipe(reference).recipe


def recipe_differences(before: Recipe, after: Recipe) -> list[Difference]:
    """Return the differences in meaning, those that change the result first."""
    found = [
        Difference(key, *pair, effect_of(key)) for key, pair in differences(meaning(before), meaning(after)).items()
    ]
    return sorted(found, key=lambda one: list(EFFECTS).index(one.effect))


def meaning(recipe: Recipe) -> dict[str, Any]:
    """Return a recipe in canonical form: aliases as Hub ids, defaults filled in, sets sorted, files by content.

    In a recipe with rounds, the sections of each are below `rounds.<name>`.
    """
    if not recipe.rounds:
        return _meaning(recipe)
    parts = {str(part.round_name): _meaning(part) for part in recipe.parts}
    shared = {key: value for key, value in next(iter(parts.values())).items() if key not in (*SECTIONS, "of")}
    made_of = {one.name: one for one in recipe.rounds}
    rounds = {
        name: {
            **{key: tree[key] for key in SECTIONS if getattr(made_of[name], key)},
            **tree["of"],
            "gate": dict(made_of[name].gate),
        }
        for name, tree in parts.items()
    }
    push = recipe.push.model_dump(mode="json") if recipe.push else None
    return {**shared, "student": find_student(recipe.student).hub_id, "push": push, "rounds": rounds}


def _meaning(recipe: Recipe) -> dict[str, Any]:
    """Return one round, or a recipe without rounds, in canonical form."""
    tree = recipe.model_dump(mode="json")
    student = find_student(recipe.student)
    tree["student"] = student.hub_id
    if recipe.generate is not None:
        teacher = recipe.generate.teacher
        tree["generate"]["teacher"] = hub_id_of(teacher)
    sft = recipe.sft
    default_rate = student.learning_rate if sft.method == "full" else LORA_LEARNING_RATE
    tree["sft"]["learning_rate"] = sft.learning_rate or default_rate
    if sft.method != "full":
        tree["sft"]["lora"] = (sft.lora or Lora()).model_dump(mode="json")
    if (rl := recipe.rl) is not None:
        tree["rl"]["learning_rate"] = rl.peak_learning_rate
        if rl.method != "full":
            tree["rl"]["lora"] = (rl.lora or Lora()).model_dump(mode="json")
    if sft.rope_theta is None and student.context is not None and sft.max_length > student.context:
        tree["sft"]["rope_theta"] = student.rope_theta
    tree["sft"]["chat_template"] = _content(sft.chat_template or student.template_override)
    tree["problems"] = _by_source(tree["problems"], recipe.seed)
    tree["traces"] = _by_source(tree["traces"], None)
    if recipe.eval is not None:
        tree["eval"]["benchmarks"] = _by_source(tree["eval"]["benchmarks"], recipe.seed)
    tree["filter"]["decontaminate"] = sorted({_content(entry) or "" for entry in recipe.filter.decontaminate})
    sorted_tree: dict[str, Any] = _sorted(tree)
    return sorted_tree


def effect_of(key: str) -> Effect:
    """Return what a change of a key affects."""
    parts = key.split(".")
    if parts[0] == "rounds":
        key = ".".join(parts[2:])
    if parts[-2:-1] == ["gate"] or any(key == one or key.startswith(f"{one}.") for one in _NEITHER):
        return "neither"
    return "compute" if "compute" in parts or parts[0] == "sandbox" else "result"


def flow(value: Any) -> str:
    """Return a value as YAML on one line, or `not there` for `None`."""
    if value is None:
        return "not there"
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=math.inf)
    text = text.removesuffix("\n...\n").rstrip("\n")
    return text if len(text) <= MAX_SHOWN_CHARS else f"{text[: MAX_SHOWN_CHARS - 1]}…"


def _by_source(sources: list[dict[str, Any]], seed: int | None) -> dict[str, Any]:
    """Return the sources by name, since their order does not matter."""
    found: dict[str, Any] = {}
    for source in sources:
        one = {**source, "source": _content(source["source"])}
        if "problems" in one:
            one["problems"] = _content(one["problems"])
        if seed is not None:
            one["seed"] = seed if one["seed"] is None else one["seed"]
        one["task"] = one["task"] or ("gym" if source["source"].startswith("gym:") else "math")
        name = f"[{one['source']}{'/' + one['config'] if one['config'] else ''}:{one['split']}]"
        while name in found:
            name += "+"
        found[name] = one
    return found


def _content(name: str | None) -> str | None:
    """Return a `file:` source with its hash instead of its folder, and anything else unchanged."""
    if name is None or not name.startswith(FILE):
        return name
    path = Path(name.removeprefix(FILE))
    return f"{FILE}{path.name} (sha256 {sha256_of(path)[:12]})" if path.is_file() else name


def _sorted(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {
            key: sorted(inner) if key in _UNORDERED and isinstance(inner, list) else _sorted(inner)
            for key, inner in value.items()
        }
    return value


def _is_recipe(reference: str) -> bool:
    from distill.recipe.installed import installed_path

    return installed_path(reference) is not None


def _ran(folder: Path, summary: Mapping[str, Any]) -> Recipe:
    """Return the recipe in a run's summary.

    Raises:
        RecipeError: this version of distill cannot read it.
    """
    from pydantic import ValidationError

    from distill.errors import ModelError

    try:
        return recipe_of_tree(summary.get("recipe"))
    except (ValidationError, ModelError) as error:
        lines = explain(error, {}, {}, "recipe") if isinstance(error, ValidationError) else str(error).splitlines()
        why = lines[0].removesuffix(".")
        raise RecipeError(f"{folder / SUMMARY}: its recipe is of another version of distill ({why}).") from None
