"""The boundary for a recipe from outside: it may name files of its own repository, but none of this machine's."""

from dataclasses import dataclass
from pathlib import Path

from distill.errors import RecipeError


@dataclass(frozen=True, slots=True)
class Fence:
    """The folder that must contain all of a recipe's files."""

    folder: Path
    reference: str
    """Where the recipe comes from."""

    def holds(self, path: Path) -> bool:
        """Return whether a path is inside, after following links."""
        try:
            return path.resolve().is_relative_to(self.folder.resolve())
        except (OSError, ValueError, RuntimeError):
            return False

    def refusal(self, named: str) -> RecipeError:
        """Return the error for a path that is not inside."""
        return RecipeError(
            f"{self.reference}: names {named!r}, which is outside its own repository. A recipe from outside may read "
            "only files that come with it. If you trust it, make a recipe of your own from it: distill recipes pull "
            f"'{self.reference}'"
        )
