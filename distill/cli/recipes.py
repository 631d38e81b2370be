"""`distill recipes`: list, show, copy, check, compare and share recipes."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from distill.cli.app import DEFAULT_RUN_DIR, PREPARE_PANEL, JsonOption, RunDirOption, command, group
from distill.cli.completion import complete_recipe
from distill.cli.output import console, print_json, print_note, print_result
from distill.errors import RecipeError, UserError

if TYPE_CHECKING:
    from distill.recipe.diff import Difference

REFERENCE_HELP = "An installed recipe's name, a file, hf:org/repo/recipe.yaml@revision or git+https://…@revision#path."

recipes = group(
    "recipes",
    about="List, show, copy, check, compare and share recipes.",
    examples=[
        "distill recipes ls  # those that come with distill",
        "distill recipes cp quickstart  # to change it",
        "distill recipes diff quickstart recipe.yaml",
    ],
    panel=PREPARE_PANEL,
)


class RepoKind(StrEnum):
    """Kinds of Hub repositories that can hold recipes."""

    MODEL = "model"
    DATASET = "dataset"


RecipeArgument = Annotated[str, typer.Argument(metavar="RECIPE", help=REFERENCE_HELP, autocompletion=complete_recipe)]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a recipe key. Repeatable.")
]


@command(
    "ls",
    about="List the installed recipes: what each is for, its students, what it costs.",
    examples=["distill recipes ls"],
    panel="",
    to=recipes,
)
def ls(as_json: JsonOption = False) -> None:
    """List the installed recipes."""
    from distill.recipe.listing import installed_entries

    entries = installed_entries()
    if as_json:
        print_json({"schema_version": 1, "recipes": entries})
        return
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 1, 0), header_style="bold")
    for heading in ("name", "what for", "students", "costs"):
        table.add_column(heading, overflow="fold", no_wrap=heading == "name")
    for entry in entries:
        table.add_row(entry["name"], entry["description"], entry["students"], entry["cost_class"])
    shown = console()
    shown.print(table)
    shown.print(
        "distill recipes show NAME shows one in full, distill run NAME runs it, distill recipes cp NAME copies it."
    )


@command(
    "show",
    about="Show a recipe: as it was written, or with every default (--resolved).",
    examples=[
        "distill recipes show r1",
        "distill recipes show r1-lora --resolved  # parents merged, defaults written out",
        "distill recipes show hf:org/repo/recipe.yaml@main  # and what it would access",
    ],
    panel="",
    to=recipes,
)
def show(
    recipe: RecipeArgument,
    resolved: Annotated[bool, typer.Option("--resolved", help="Parents merged, every default written out.")] = False,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a recipe."""
    from distill.cli.outside import description, outside_json
    from distill.recipe.loading import read_recipe
    from distill.recipe.text import recipe_yaml
    from distill.recipe.text import resolved as all_of
    from distill.recipe.trust import MIN_HASH_CHARS

    loaded = read_recipe(recipe, overrides or ())
    if as_json:
        text = loaded.path.read_text(encoding="utf-8-sig")
        shown = {"recipe": recipe, "path": str(loaded.path), "text": text, "resolved": all_of(loaded.recipe)}
        print_json({"schema_version": 1, **shown, "outside": outside_json(loaded)})
        return
    if resolved:
        print_result(recipe_yaml(all_of(loaded.recipe)), end="")
        return
    if loaded.outside is not None:
        print_result(description(loaded))
        print_note(f"To run it: distill run '{recipe}' --accept-recipe {loaded.outside.sha256[:MIN_HASH_CHARS]}")
        return
    print_result(loaded.path.read_text(encoding="utf-8-sig"), end="")


@command(
    "cp",
    about="Copy a recipe here, to change it.",
    examples=["distill recipes cp quickstart", "distill recipes cp r1-lora mine.yaml"],
    panel="",
    to=recipes,
)
def cp(
    recipe: RecipeArgument,
    target: Annotated[Path, typer.Argument(metavar="TO", help="File to write, or a folder.")] = Path("recipe.yaml"),
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Copy a recipe."""
    from distill.recipe.copying import copy_recipe

    copied = copy_recipe(recipe, target, force)
    if as_json:
        print_json({"schema_version": 1, **copied.to_json()})
        return
    print_note(f"{copied.path}: a copy of {recipe}, with {copied.schema.name} beside it for your editor.")
    if copied.parent:
        print_note(f"It extends {copied.parent}. To see both merged: distill recipes show {copied.path} --resolved")
    print_note(f"What it will take: distill plan {copied.path}. Run it: distill run {copied.path}.")


@command(
    "validate",
    about="Check recipes: keys, values, and conflicts between stages. Exit code 2 if one is wrong.",
    examples=["distill recipes validate", "distill recipes validate mine.yaml --student qwen-7b"],
    panel="",
    to=recipes,
)
def validate(
    references: Annotated[
        list[str] | None, typer.Argument(metavar="RECIPE", help=f"{REFERENCE_HELP} Left out: recipe.yaml.")
    ] = None,
    overrides: SetOption = None,
    student: Annotated[str | None, typer.Option("--student", help="Check it with this student.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Check recipes."""
    from distill.cli.app import DEFAULT_RECIPE
    from distill.recipe.listing import summary_line
    from distill.recipe.loading import read_recipe

    found: list[dict[str, Any]] = []
    for reference in references or [DEFAULT_RECIPE]:
        try:
            loaded = read_recipe(reference, overrides or (), {"student": student})
        except UserError as error:
            found.append({"recipe": reference, "ok": False, "errors": str(error).splitlines()})
            if not as_json:
                print_note(f"Error: {error}")
        else:
            found.append({"recipe": reference, "ok": True, "errors": [], "summary": summary_line(loaded.recipe)})
            if not as_json:
                print_result(f"OK {reference}: {found[-1]['summary']}")
    if as_json:
        print_json({"schema_version": 1, "recipes": found})
    if not all(one["ok"] for one in found):
        raise typer.Exit(RecipeError.exit_code)


@command(
    "diff",
    about="Compare two recipes, or a recipe with a run, by what they mean.",
    examples=["distill recipes diff r1 r1-lora", "distill recipes diff recipe.yaml runs/mine --exit-code"],
    panel="",
    to=recipes,
)
def diff(
    before: Annotated[str, typer.Argument(metavar="A", help=f"{REFERENCE_HELP} Or a run: its folder or name.")],
    after: Annotated[str, typer.Argument(metavar="B", help="The same.")],
    run_dir: RunDirOption = DEFAULT_RUN_DIR,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 1 if they differ.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Compare two recipes."""
    from distill.recipe.diff import EFFECTS, recipe_differences, recipe_of

    (name, one), (other_name, other) = recipe_of(before, run_dir), recipe_of(after, run_dir)
    found = recipe_differences(one, other)
    if as_json:
        shown = [{"key": d.key, "before": d.before, "after": d.after, "effect": d.effect} for d in found]
        print_json({"schema_version": 1, "before": name, "after": other_name, "differences": shown})
    elif not found:
        print_result(f"{name} and {other_name} mean the same.")
    else:
        _print_differences(found, EFFECTS, name, other_name)
    if found and exit_code:
        raise typer.Exit(1)


def _print_differences(found: "Sequence[Difference]", effects: Mapping[Any, str], before: str, after: str) -> None:
    from distill.recipe.diff import flow

    print_result(f"{before} -> {after}")
    for effect, said in effects.items():
        here = [one for one in found if one.effect == effect]
        if here:
            print_result(f"\nWhat {said}:")
        for one in here:
            print_result(f"  {one.key}: {flow(one.before)} -> {flow(one.after)}")


@command(
    "pull",
    about="Fetch a recipe from the Hub or from git, with its parents and files, into a folder; shows it, runs nothing.",
    examples=[
        "distill recipes pull hf:org/repo/recipe.yaml@main",
        "distill recipes pull git+https://host/org/repo.git",
    ],
    panel="",
    to=recipes,
)
def pull(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="hf:org/repo/recipe.yaml@revision or git+https://….")],
    target: Annotated[
        Path | None, typer.Argument(metavar="TO", help="Folder to write to; left out: the recipe's name.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace existing files.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Fetch a recipe from outside."""
    from distill.cli.outside import description, outside_json
    from distill.publish.recipe_sharing import pull as write
    from distill.recipe.loading import read_recipe

    loaded = read_recipe(recipe)
    if loaded.outside is None:
        raise RecipeError(f"{recipe}: is on this machine already. Copy it with distill recipes cp {recipe}.")
    path = write(loaded.outside, target or Path(loaded.recipe.name), force)
    if as_json:
        print_json({"schema_version": 1, "path": str(path), "outside": outside_json(loaded)})
        return
    print_result(description(loaded))
    print_note(f"{path}: your own copy, to read, change and run (distill run {path}).")


@command(
    "push",
    about="Share a recipe in a repository on the Hub, private unless --public.",
    examples=[
        "distill recipes push recipe.yaml --repo my-org/recipes",
        "distill recipes push mine.yaml --repo me/r --public",
    ],
    panel="",
    to=recipes,
)
def push(
    recipe: RecipeArgument,
    repo: Annotated[str, typer.Option("--repo", metavar="ORG/NAME", help="Repository; created if it does not exist.")],
    kind: Annotated[
        RepoKind | None, typer.Option("--kind", help="Kind of repository; left out: the existing one's, else dataset.")
    ] = None,
    path: Annotated[str, typer.Option("--path", help="File in the repository.")] = "recipe.yaml",
    public: Annotated[bool, typer.Option("--public", help="Make the repository public.")] = False,
    with_files: Annotated[bool, typer.Option("--with-files", help="Also upload the files that it names.")] = False,
    keep_addresses: Annotated[bool, typer.Option("--keep-addresses", help="Keep the addresses of servers.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Share a recipe."""
    from distill.publish.recipe_sharing import push as send
    from distill.recipe.loading import read_recipe

    shared = send(read_recipe(recipe), repo, kind and kind.value, path, not public, with_files, keep_addresses)
    if as_json:
        print_json({"schema_version": 1, **shared.to_json()})
        return
    what = f"{len(shared.changed)} files changed" if shared.changed else "nothing changed"
    print_note(f"{shared.repo} ({'private' if shared.private else 'public'}): {what}. Others can use it as")
    print_result(shared.reference)


@command(
    "schema",
    about="Print the JSON Schema of a recipe, or its reference as Markdown.",
    examples=[
        "distill recipes schema > recipe.schema.json",
        "distill recipes schema --markdown",
        "distill recipes schema --json  # wrapped as the other commands' output is",
    ],
    panel="",
    to=recipes,
)
def schema(
    markdown: Annotated[bool, typer.Option("--markdown", help="Every field as a page to read.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Print the schema."""
    from distill.recipe.reference_page import field_reference
    from distill.recipe.schema import recipe_schema, schema_text

    if markdown and as_json:
        raise UserError("distill recipes schema: --markdown prints a page to read, --json an object. Give one of them.")
    if as_json:
        print_json({"schema_version": 1, "schema": recipe_schema()})
        return
    print_result(field_reference() if markdown else schema_text(), end="")
