"""What a recipe from outside may name: the files of its own repository, and none of this machine's.

Enters: a path that a recipe names. Leaves: whether it lies within.
"""

from dataclasses import dataclass
from pathlib import Path

from distill.errors import RecipeError


@dataclass(frozen=True, slots=True)
class Fence:
    """The folder that a recipe's files must lie in."""

    folder: Path
    reference: str
    """Where the recipe comes from."""

    def holds(self, path: Path) -> bool:
        """Whether a path lies within, links followed."""
        try:
            return path.resolve().is_relative_to(self.folder.resolve())
        except (OSError, ValueError, RuntimeError):
            return False

    def refusal(self, named: str) -> RecipeError:
        """What to say of a path that does not."""
        return RecipeError(
            f"{self.reference}: names {named!r}, which is outside its own repository. A recipe from outside may read "
            "only files that come with it. If you trust it, make a recipe of your own from it: distill recipes pull "
            f"'{self.reference}'"
        )
