"""Shell completion of recipes, students, runs, and a recipe's keys and values.

Each function takes the word so far and returns pairs (word, description). Completion must not fail or be slow:
what cannot be looked up is left out.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

Offers = list[tuple[str, str]]

MAX_HELP = 60
"""Longest description, in characters: shells show it beside the word."""


def complete_recipe(incomplete: str) -> Offers:
    """Return recipe files, folders that may contain some, and the names of installed recipes."""
    package = Path(__file__).parents[1]
    # Inside the package, or beside it in a checkout.
    names = sorted({file.stem for place in (package, package.parent) for file in place.glob("recipes/*.yaml")})
    return [*_recipe_files(incomplete), *((name, "installed") for name in names if name.startswith(incomplete))]


def _recipe_files(incomplete: str) -> Offers:
    folder, sign, start = incomplete.rpartition("/")
    try:
        entries = sorted(Path(f"{folder}{sign}" or ".").expanduser().iterdir())
    except (OSError, RuntimeError):
        return []
    offers = []
    for entry in entries:
        name = f"{folder}{sign}{entry.name}"
        if not entry.name.startswith(start) or entry.name.startswith("."):
            continue
        if entry.is_dir():
            offers.append((f"{name}/", "folder"))
        elif entry.suffix in (".yaml", ".yml"):
            offers.append((name, "recipe"))
    return offers


def complete_student(incomplete: str) -> Offers:
    """Return aliases of the student table."""
    from distill.models.students import STUDENTS

    return [(name, one.hub_id) for name, one in STUDENTS.items() if name.startswith(incomplete)]


def complete_run(ctx: Any, incomplete: str) -> Offers:
    """Return the runs in `--run-dir`, if that comes before the word."""
    from distill.storage.run_folder import is_run

    run_dir = Path(ctx.params.get("run_dir") or "runs")
    taken = ctx.params.get("names") or ()
    try:
        folders = sorted(folder for folder in run_dir.iterdir() if is_run(folder))
    except OSError:
        return []
    return [(f.name, "run") for f in folders if f.name.startswith(incomplete) and f.name not in taken]


def complete_setting(incomplete: str) -> Offers:
    """Return the keys in the section typed so far, or after `=` the possible values of a key."""
    key, sign, value = incomplete.partition("=")
    if sign:
        return [(f"{key}={choice}", "") for choice in _choices(key) if choice.startswith(value)]
    section, dot, start = key.rpartition(".")
    offers = []
    for name, annotation, about in _fields(section):
        if name.startswith(start):
            has_keys = any(True for _ in _models_in(annotation))
            is_list = get_origin(annotation) is list
            offers.append((f"{section}{dot}{name}{'.0.' if has_keys and is_list else '.' if has_keys else '='}", about))
    return offers


def _fields(section: str) -> Iterator[tuple[str, Any, str]]:
    """Yield name, type and description of each key in a section (`generate.sampling`; empty: the recipe itself)."""
    from distill.recipe.model import Recipe

    model: Any = Recipe
    for part in section.split(".") if section else ():
        if part.isdigit():  # an entry of a list: problems.0.limit
            continue
        field = model.model_fields.get(part)
        model = next(_models_in(field.annotation), None) if field is not None else None
        if model is None:
            return
    for name, field in model.model_fields.items():
        about = " ".join((field.description or "").replace("`", "").split())  # a shell evaluates it
        yield name, field.annotation, about if len(about) <= MAX_HELP else f"{about[: MAX_HELP - 1]}…"


def _choices(key: str) -> list[str]:
    section, _, name = key.rpartition(".")
    annotation = next((annotation for field, annotation, _ in _fields(section) if field == name), None)
    return list(dict.fromkeys(_values(annotation)))


def _values(annotation: Any) -> Iterator[str]:
    if annotation is bool:
        yield from ("true", "false")
    elif get_origin(annotation) is Literal:
        yield from (str(value) for value in get_args(annotation))
    elif annotation is type(None):
        yield "null"
    else:
        for part in get_args(annotation):
            yield from _values(part)


def _models_in(annotation: Any) -> Iterator[Any]:
    from pydantic import BaseModel

    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models_in(part)
