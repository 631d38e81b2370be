"""The recipes that come with distill, by name, and the notes in their head comments.

Example of such notes:

    # Students: qwen-1.5b, qwen-7b (--student)
    # Runs on: qwen-1.5b 1 x h100, qwen-7b 2 x h100
    # Costs: one GPU of 24 GB, a few hours. How that was worked out.
    # Expect: …
"""

import difflib
import re
from dataclasses import dataclass
from pathlib import Path

from distill.core.file_kinds import MISSING, is_file, kind_of
from distill.errors import RecipeError

SUFFIXES = (".yaml", ".yml")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_NOTES = ("Students", "Runs on", "Costs", "Expect")
_LAYOUT = re.compile(r"(\S+) (\d+) x (\S+)")


def installed_folder() -> Path:
    """Return the folder of the installed recipes: inside the package, or beside it in a checkout."""
    inside = Path(__file__).parents[1] / "recipes"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "recipes"


def installed_names() -> list[str]:
    """Return the names of the installed recipes, quickstart first."""
    names = sorted(path.stem for path in installed_folder().glob("*.yaml"))
    return sorted(names, key=lambda name: name != "quickstart")


def installed_path(reference: str) -> Path | None:
    """Return the file of an installed recipe, or `None` if the reference does not name one."""
    if not _NAME.fullmatch(reference) or reference.endswith(SUFFIXES):
        return None
    path = installed_folder() / f"{reference}.yaml"
    return path if is_file(path) else None


def unknown_name(reference: str) -> RecipeError | None:
    """Return the error for a reference that looks like a name but is not an installed recipe; `None` for a path."""
    if not _NAME.fullmatch(reference) or reference.endswith(SUFFIXES) or kind_of(Path(reference)) != MISSING:
        return None
    near = difflib.get_close_matches(reference, installed_names(), n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return RecipeError(
        f"{reference}: no such recipe.{hint} Installed: {', '.join(installed_names())}; a file is named with its "
        "suffix, e.g. recipe.yaml."
    )


@dataclass(frozen=True, slots=True)
class Notes:
    """The notes in a recipe's head comment."""

    about: str
    """Its first paragraph."""
    students: str
    runs_on: str
    """Minimum hardware per student, as in `4 x h100`; `cpu` counts cores."""
    costs: str
    expect: str

    @property
    def layouts(self) -> list[tuple[str, int, str]]:
        """Return (student, number, kind of GPU or `cpu`) for each entry of `runs_on`."""
        found = (_LAYOUT.fullmatch(part.strip()) for part in self.runs_on.split(","))
        return [(one[1], int(one[2]), one[3]) for one in found if one]

    @property
    def cost_class(self) -> str:
        """Return the first sentence of the costs."""
        return self.costs.partition(". ")[0].rstrip(".")


def notes_of(text: str) -> Notes:
    """Return the notes in a recipe's head comment; missing ones are empty."""
    paragraphs: dict[str, list[str]] = {"": []}
    key, ended = "", False
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        said = line[1:].strip()
        label = said.partition(":")[0]
        if said.startswith("yaml-language-server:"):
            continue
        if label in _NOTES:
            key, said = label, said.partition(":")[2].strip()
            paragraphs[key] = []
        elif not said:
            ended = True
            key = "-"
        if said and not (key == "" and ended):
            paragraphs.setdefault(key, []).append(said)
    joined = {name: " ".join(lines) for name, lines in paragraphs.items()}
    return Notes(joined[""], *(joined.get(name, "") for name in _NOTES))
