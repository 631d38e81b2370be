"""Entries for `distill recipes ls`, and one-line summaries of recipes."""

from typing import Any

from distill.recipe.installed import installed_folder, installed_names, notes_of
from distill.recipe.loading import read_recipe
from distill.recipe.model import Recipe
from distill.recipe.rounds import Round


def installed_entries() -> list[dict[str, Any]]:
    """Return an entry for each installed recipe: purpose, students, hardware, costs, expected results."""
    return [_entry(name) for name in installed_names()]


def summary_line(recipe: Recipe) -> str:
    """Return what a recipe does, e.g. `8 samples a problem by org/teacher -> lora qwen-7b -> 2 evaluation sets`."""
    if recipe.rounds:
        named = ", ".join(f"{one.name} ({_of_round(one)})" for one in recipe.rounds)
        return f"{len(recipe.rounds)} rounds: {named}"
    steps: list[str] = []
    if recipe.generate is not None:
        steps.append(f"{recipe.generate.samples_per_problem} samples a problem by {recipe.generate.teacher}")
    elif recipe.traces:
        steps.append(f"traces of {', '.join(one.source for one in recipe.traces)}")
    if recipe.trains:
        steps.append(f"{recipe.sft.method} {recipe.student}")
    if (rl := recipe.rl) is not None:
        steps.append(f"{rl.steps:,} steps of {rl.algorithm}" + ("" if recipe.trains else f" on {recipe.student}"))
    if recipe.eval is not None:
        sets = len(recipe.eval.benchmarks) + bool(recipe.eval.held_out)
        steps.append(f"{sets} evaluation set{'' if sets == 1 else 's'}")
    if recipe.push is not None:
        steps.append(f"{recipe.push.repo} on the Hub")
    return " -> ".join(steps)


def _of_round(one: Round) -> str:
    """Return what a round does, e.g. `sample round:a, train qwen-7b`."""
    does = [f"sample {one.generate.teacher}"] if one.generate is not None else []
    does += ["import traces"] if one.traces else []
    who = one.student or "the student"
    does += [f"train {who}"] if one.sft is not None else []
    does += [f"reinforce {who if one.sft is None else 'it'}"] if one.rl is not None else []
    return ", ".join(does)


def _entry(name: str) -> dict[str, Any]:
    path = installed_folder() / f"{name}.yaml"
    recipe = read_recipe(name).recipe
    notes = notes_of(path.read_text(encoding="utf-8"))
    return {
        "name": name,
        "description": recipe.description,
        "about": notes.about,
        "students": notes.students or recipe.student,
        "runs_on": notes.runs_on,
        "cost_class": notes.cost_class,
        "costs": notes.costs,
        "expect": notes.expect,
        "path": str(path),
    }
