"""Confirmation of recipes from outside: they are shown before their first run, and run only once accepted."""

import sys
from typing import TYPE_CHECKING, Any

import typer

from distill.core.terminal import printable_line
from distill.errors import RecipeError

if TYPE_CHECKING:
    from distill.recipe.loading import LoadedRecipe


def confirm(loaded: "LoadedRecipe", accepted: str | None) -> None:
    """Make sure that a recipe from outside is accepted; on a terminal, show it and ask.

    Args:
        loaded: any recipe; one of this machine needs no confirmation.
        accepted: the hash given on the command line, or its beginning.

    Raises:
        RecipeError: it is not accepted.
    """
    from distill.cli.output import print_note
    from distill.recipe.trust import MIN_HASH_CHARS, accept, is_accepted, refuse_unaccepted

    fetched = loaded.outside
    if fetched is None:
        return
    digits = None if accepted is None else accepted.lower().removeprefix("sha256:")
    if digits is not None and (len(digits) < MIN_HASH_CHARS or not fetched.sha256.startswith(digits)):
        raise RecipeError(
            f"--accept-recipe {accepted}: the content of {fetched.reference} is {fetched.sha256[:MIN_HASH_CHARS]} (at "
            f"least {MIN_HASH_CHARS} digits are needed). It may have changed since you looked: "
            f"distill recipes show '{fetched.reference}'"
        )
    if is_accepted(fetched.sha256):
        return
    print_note(description(loaded))
    if accepted is None:
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            refuse_unaccepted(fetched)
        if not typer.confirm("Run this recipe?", default=False, err=True):
            raise RecipeError(f"{fetched.reference}: not accepted, so nothing was run.")
    accept(fetched)


def description(loaded: "LoadedRecipe") -> str:
    """Return a recipe from outside and what it would access, as text for a terminal."""
    from distill.recipe.text import recipe_yaml, relative_sources
    from distill.recipe.trust import MIN_HASH_CHARS, accesses

    fetched = loaded.outside
    assert fetched is not None
    text = recipe_yaml(relative_sources(loaded.tree, fetched.folder.resolve()))
    reached = [
        f"  {'!' if access.warning else '-'} {printable_line(access.what)}" for access in accesses(loaded.recipe)
    ]
    return "\n".join(
        [
            f"A recipe from outside: {fetched.pinned}",
            f"Content {fetched.sha256[:MIN_HASH_CHARS]}, files: {len(fetched.files)}. It sets (defaults left out):",
            "",
            *(f"    {line}" for line in text.splitlines()),
            "",
            "It cannot execute code. When run, it (! marks what leaves this machine):",
            *reached,
            "",
        ]
    )


def outside_json(loaded: "LoadedRecipe") -> dict[str, Any] | None:
    """Return where a recipe comes from and what it would access, or `None` for one of this machine."""
    from distill.recipe.trust import accesses, is_accepted

    fetched = loaded.outside
    if fetched is None:
        return None
    return {
        "pinned": fetched.pinned,
        "sha256": fetched.sha256,
        "files": [path.relative_to(fetched.folder).as_posix() for path in fetched.files],
        "accepted": is_accepted(fetched.sha256),
        "touches": [{"what": access.what, "warning": access.warning} for access in accesses(loaded.recipe)],
    }
