"""The Typer application, and what its commands share: registration, and the options of commands that take a recipe.

Example:

    @recipe_command("check", about="Check the kept traces.")
    def check(given: CommonOptions, twice: Annotated[bool, typer.Option("--twice")] = False) -> None:
        recipe = given.load()
"""

import dataclasses
import inspect
import os
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from distill import __version__
from distill.cli.completion import complete_recipe, complete_setting, complete_student
from distill.cli.help import HelpfulCommand, HelpfulGroup
from distill.errors import DistillError

if TYPE_CHECKING:
    from distill.recipe.loading import LoadedRecipe
    from distill.recipe.model import Recipe

PROGRAM = "distill"
DEFAULT_RECIPE = "recipe.yaml"
DEFAULT_RUN_DIR = Path("runs")
STAGES_PANEL = "Stages"
PREPARE_PANEL = "Before a run"
RESULTS_PANEL = "After a run"
HELP_NAMES = {"help_option_names": ["-h", "--help"]}

app = typer.Typer(
    name=PROGRAM,
    cls=HelpfulGroup,
    help="Make small reasoning models: sample a teacher, keep what is right and readable, train a student, measure it.",
    epilog="distill recipes cp quickstart  # a recipe.yaml to change\n"
    "distill plan  # what it will take\n"
    "distill run  # all stages, in order\n"
    "distill run -h  # how a command is used, with examples",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings=HELP_NAMES,
)

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
RunDirOption = Annotated[
    Path, typer.Option("--run-dir", metavar="DIR", help="Folder for runs; results go to DIR/<recipe name>/.")
]
_NAMED_COMMAND = re.compile(
    r"`distill (run|generate|import|filter|sft|rl|eval|push|plan|doctor)((?: --round [A-Za-z0-9._-]+)?(?: --[a-z-]+)*)`"
)
"""A command line in a message of the core, which does not know the options that were given."""


@dataclasses.dataclass(frozen=True)
class CommonOptions:
    """The options shared by all commands that take a recipe."""

    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE",
            help="A file, an installed recipe's name (distill recipes ls), hf:org/repo/recipe.yaml@revision, "
            "git+https://host/org/repo.git@revision#path or a run's recipe.lock.yaml.",
            autocompletion=complete_recipe,
        ),
    ] = DEFAULT_RECIPE
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Override a recipe key, e.g. --set sft.epochs=2. Repeatable.",
            autocompletion=complete_setting,
        ),
    ] = None
    student: Annotated[
        str | None,
        typer.Option(
            "--student", help="Student: an alias (qwen-1.5b), a Hub id or a folder.", autocompletion=complete_student
        ),
    ] = None
    teacher: Annotated[
        str | None,
        typer.Option("--teacher", help="Teacher: a Hub id, a folder or an alias.", autocompletion=complete_student),
    ] = None
    run_dir: RunDirOption = DEFAULT_RUN_DIR
    force: Annotated[
        bool,
        typer.Option("--force", help="Move results of a changed recipe aside instead of stopping. Deletes nothing."),
    ] = False
    accept_recipe: Annotated[
        str | None,
        typer.Option(
            "--accept-recipe",
            metavar="HASH",
            help="Run a recipe from outside that you have looked at (distill recipes show): the first 12 digits, or "
            "more, of its content's hash.",
        ),
    ] = None
    as_json: JsonOption = False
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no notes, only errors.")] = False
    command: str = ""
    """The command itself, no option; for a stage, the stage's name."""

    def again(self, stage: str) -> str:
        """Return the command line that runs a stage with the same recipe, settings and run folder."""
        return shlex.join([PROGRAM, stage, *self.arguments()])

    def arguments(self) -> list[str]:
        """Return recipe, settings and run folder as command-line arguments."""
        words = [self.recipe] if self.recipe != DEFAULT_RECIPE else []
        for override in self.overrides or ():
            words += ["--set", override]
        for option, value in (("--student", self.student), ("--teacher", self.teacher)):
            words += [option, value] if value is not None else []
        return words + (["--run-dir", str(self.run_dir)] if self.run_dir != DEFAULT_RUN_DIR else [])

    def in_full(self, message: str) -> str:
        """Return a message with the given options added to each command line in it."""
        return _NAMED_COMMAND.sub(lambda found: f"`{self.again(found[1])}{found[2]}`", message)

    def load(self, flags: Mapping[str, Any] | None = None) -> "Recipe":
        """Load the recipe with all options of the command line, to run it.

        Args:
            flags: further named flags by the key that they override; `None` values are ignored.

        Raises:
            UserError: it is invalid, or comes from outside and is not accepted.
        """
        return self.load_whole(flags).recipe

    def load_whole(self, flags: Mapping[str, Any] | None = None) -> "LoadedRecipe":
        """Load the recipe like `load`, and return it with where it came from."""
        from distill.cli.outside import confirm

        loaded = self.look(flags)
        confirm(loaded, self.accept_recipe)
        return loaded

    def look(self, flags: Mapping[str, Any] | None = None) -> "LoadedRecipe":
        """Load the recipe like `load_whole`, but to show it, not to run it: it need not be accepted."""
        from distill.core.progress import QUIET
        from distill.recipe.loading import read_recipe

        if self.quiet:
            os.environ[QUIET] = "1"
        named = {"student": self.student, "generate.teacher": self.teacher, **(flags or {})}
        return read_recipe(self.recipe, self.overrides or (), named)


def command(
    name: str, about: str, examples: Sequence[str], panel: str, to: typer.Typer = app
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add a function as a command.

    Args:
        name: of the command.
        about: what it does, in a line.
        examples: command lines to copy, each with an optional note after two spaces and `#`.
        panel: heading of the command in `--help`.
        to: the group that the command belongs to.
    """
    return to.command(name, cls=HelpfulCommand, help=about, epilog="\n".join(examples), rich_help_panel=panel)


def group(name: str, about: str, examples: Sequence[str], panel: str) -> typer.Typer:
    """Add a group of commands, such as `distill runs`, and return it. The arguments are those of `command`."""
    made = typer.Typer(cls=HelpfulGroup, no_args_is_help=True, rich_markup_mode=None, context_settings=HELP_NAMES)
    app.add_typer(made, name=name, help=about, epilog="\n".join(examples), rich_help_panel=panel)
    return made


def recipe_command(
    name: str | None = None,
    *,
    about: str,
    examples: Sequence[str],
    panel: str = STAGES_PANEL,
    without: Sequence[str] = (),
    to: typer.Typer = app,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add a function `(given: CommonOptions, its own options…)` as a command that has the shared options too.

    Args:
        name: as for `command`, like `about`, `examples`, `panel` and `to`; default: the function's, without a last `_`.
        without: shared options to leave out.
    """

    def add(function: Callable[..., None]) -> Callable[..., None]:
        omitted = {*without, "command"}
        shared = {key: p for key, p in inspect.signature(CommonOptions).parameters.items() if key not in omitted}
        called_by = name or function.__name__.removesuffix("_")
        own = list(inspect.signature(function).parameters.values())[1:]

        def called(**values: Any) -> None:
            given = CommonOptions(**{key: values.pop(key) for key in shared}, command=called_by)
            try:
                function(given, **values)
            except DistillError as error:
                error.args = (given.in_full(str(error)),)
                raise

        parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in (*own, *shared.values())]
        called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        called.__annotations__ = {p.name: p.annotation for p in parameters}
        command(called_by, about, examples, panel, to)(called)
        return function

    return add


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"distill {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Handle the options of distill itself."""
