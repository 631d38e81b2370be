"""`distill eval` without a recipe: its options, and any models on any suites."""

import contextlib
import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.cli.app import DEFAULT_RECIPE, CommonOptions
from distill.errors import RecipeError, UserError

MAX_NAME_CHARS = 60
RECIPE_FILE = "recipe.yaml"
FORMATS = ("inspect", "lighteval")

_MODELS = ("--model", "--check-harness")
_NEEDS: tuple[tuple[tuple[str, ...], tuple[str, ...], str], ...] = (
    (("--as", "--audit", "--export"), ("--from",), "the answers"),
    (("--name", "--limit", "--samples", "--protocol"), _MODELS, "what to measure"),
    (("--suite",), (*_MODELS, "--from"), "what to measure; a recipe names its own suites"),
    (("--judge", "--judge-url"), (*_MODELS, "--from"), "what to measure; a recipe names its own judge"),
    (("--judge",), ("--judge-url",), "the judge's server"),
    (("--judge-url",), ("--judge",), "the judge's name on its server"),
    (("--via",), ("--model",), "the models to measure"),
    (("--via",), ("--inspect-python",), "the Python of an environment that has inspect_ai"),
    (("--inspect-python",), ("--via",), "the task to run there"),
    (("--check-harness",), ("--suite",), "what to measure on. `distill suites ls` lists them"),
    (("--model",), ("--suite", "--via"), "what to measure on. `distill suites ls` lists them"),
)
"""Options, those of which they need one, and what that is."""
_EXCLUDES: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("--from", (*_MODELS, "--via", "--retry-errors"), "grades stored answers and samples none"),
    ("--as", ("--audit", "--export"), "shows the answers in a way of its own"),
    ("--audit", ("--export",), "shows the answers in a way of its own"),
    ("--export", ("--suite", "--judge"), "writes a run's answers, and a run names its own suites and judge"),
    ("--round", _MODELS, "is of a recipe with rounds, or of a run with --from"),
    (
        "--via",
        ("--suite", "--judge", "--check-harness", "--retry-errors", "--force", "--student", "--teacher"),
        "runs a task of another harness, from the beginning",
    ),
)
"""An option, those that it would ignore or that contradict it, and what it does."""


@dataclass(frozen=True)
class Request:
    """The options of `distill eval` besides those of every command."""

    models: tuple[str, ...]
    suites: tuple[str, ...]
    name: str | None
    samples: int | None
    limit: int | None
    protocol: str | None
    judge: str | None
    judge_url: str | None
    source: str | None
    rules: str | None
    audit: bool
    via: str | None
    inspect_python: Path | None
    check_harness: bool
    export: str | None
    retry_errors: bool
    of_round: str | None

    @property
    def is_of_models(self) -> bool:
        """Return whether models are measured without a recipe."""
        return bool(self.models) or self.check_harness

    def refuse_contradictions(self, given: CommonOptions) -> None:
        """Raise if options that need one another are apart, exclude one another, or would be ignored.

        Args:
            given: the options of every command.

        Raises:
            UserError: the message names the options.
        """
        if given.recipe != DEFAULT_RECIPE and (self.is_of_models or self.source is not None):
            option = "--from" if self.source is not None else "--model" if self.models else "--check-harness"
            raise UserError(f"eval: {option} is without a recipe, and {given.recipe} is one. Give one of them.")
        there = self.options(given)
        for option, others, does in _EXCLUDES:
            if option in there and (other := next((one for one in others if one in there), None)):
                raise UserError(f"eval: {option} {does}, so {other} does not go with it. Give one of them.")
        for options, needed, what in _NEEDS:
            lacking = [option for option in options if option in there]
            if lacking and there.isdisjoint(needed):
                need = "needs" if len(lacking) == 1 else "need"
                raise UserError(f"eval: {', '.join(lacking)} {need} {' or '.join(needed)}: {what}.")
        if self.export is not None and self.export.partition(":")[0] not in FORMATS:
            raise UserError(f"eval: --export {self.export}: expected {' or '.join(f'{one}:DIR' for one in FORMATS)}.")
        if self.is_of_file and (of_runs := there & {"--export", "--round"}):
            raise UserError(f"eval: {min(of_runs)} goes with --from RUN; {self.source} is a file of answers.")

    @property
    def is_of_file(self) -> bool:
        """Return whether the stored answers are those of a file, not of a run."""
        from distill.sources.tables import KINDS

        return self.source is not None and Path(self.source).suffix.lower() in KINDS

    def options(self, given: CommonOptions) -> set[str]:
        """Return the options that were given."""
        values = {
            "--model": self.models or None,
            "--suite": self.suites or None,
            "--name": self.name,
            "--samples": self.samples,
            "--limit": self.limit,
            "--protocol": self.protocol,
            "--judge": self.judge,
            "--judge-url": self.judge_url,
            "--from": self.source,
            "--as": self.rules,
            "--audit": self.audit or None,
            "--via": self.via,
            "--inspect-python": self.inspect_python,
            "--check-harness": self.check_harness or None,
            "--export": self.export,
            "--retry-errors": self.retry_errors or None,
            "--round": self.of_round,
            "--force": given.force or None,
            "--student": given.student,
            "--teacher": given.teacher,
        }
        return {option for option, value in values.items() if value is not None}


def measure(given: CommonOptions, asked: Request, run_stages: Callable[..., None]) -> Path:
    """Measure models on suites, and return the recipe that says so: it is kept in the run's folder.

    Args:
        given: the options of every command.
        asked: those of this one.
        run_stages: `distill.cli.stages.run_stages`, which uses this module.
    """
    from distill.recipe.suites import load_suite

    for suite in asked.suites:
        load_suite(suite)
    models, name = models_of(asked), run_name(asked, given.run_dir)
    path = given.run_dir / name / RECIPE_FILE
    refuse_other_run(path)
    with kept_if_accepted(path) as accepted:
        write_recipe(path, with_settings(recipe_tree(asked, models, name, path), given.overrides or ()))
        run_stages("eval", dataclasses.replace(given, recipe=str(path), command="eval"), accepted=accepted)
    return path


@contextmanager
def kept_if_accepted(path: Path) -> Iterator[Callable[[], None]]:
    """Yield a function to call once the run begins; if it is never called, the file is put back as it was.

    A refused call must not change what the next one adds to.
    """
    before = path.read_bytes() if path.is_file() else None
    begun: list[bool] = []
    try:
        yield lambda: begun.append(True)
    except RecipeError as error:
        raise without_place(error, path) from None
    finally:
        if not begun and before is not None:
            path.write_bytes(before)
        elif not begun:
            path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # there is more in it
                path.parent.rmdir()


def without_place(error: RecipeError, path: Path) -> RecipeError:
    """Return an error without the lines of a recipe's file that the user did not write."""
    return RecipeError(re.sub(rf"{re.escape(str(path))}(:\d+)?: ", "eval: ", str(error)))


def run_name(asked: Request, run_dir: Path) -> str:
    """Return the name that was given to the run, or the one made from its models.

    Raises:
        UserError: no run can have this name.
    """
    if asked.name is None:
        return default_name(models_of(asked), run_dir)
    check_name(asked.name)
    return asked.name


def default_name(models: Sequence[str], run_dir: Path) -> str:
    """Return the name of a run that measures these models, in whatever order.

    If it is too long, or a run of this name measures other models, it ends in a hash of their full names.
    """
    from distill.evaluation.model_names import short_name, with_hash

    name = "eval-" + "-".join(sorted(map(short_name, models)))
    if len(name) <= MAX_NAME_CHARS:
        there = earlier_section(run_dir / name / RECIPE_FILE).get("models")
        if there is None or sorted(map(str, there)) == sorted(models):
            return name
    return with_hash(name[:MAX_NAME_CHARS].rstrip("-."), "\n".join(sorted(models)))


def check_name(name: str) -> None:
    """Raise if a run cannot have this name.

    Raises:
        UserError: it cannot.
    """
    from pydantic import TypeAdapter, ValidationError

    from distill.recipe.base import Name

    try:
        TypeAdapter(Name).validate_python(name)
    except ValidationError:
        raise UserError(
            f"eval: --name {name}: the name of a run has letters, digits, '.', '_' and '-' alone, at most 96, and "
            "begins with a letter or digit. Its folder is in --run-dir."
        ) from None


def refuse_other_run(path: Path) -> None:
    """Raise if the folder of a recipe holds a run that is not one of measured models alone.

    Raises:
        UserError: it does; its summary and its lock would be replaced.
    """
    from distill.results.kinds import stage_with
    from distill.results.measure import MeasureMetrics
    from distill.storage.layout import IDENTITY, SUMMARY

    folder, own = path.parent, stage_with(MeasureMetrics)
    stages = {file.parent.name.partition(".")[0] for at in ("*", "*/*") for file in folder.glob(f"{at}/{IDENTITY}")}
    is_foreign = bool(stages - {own}) if path.is_file() else (folder / SUMMARY).exists()
    if is_foreign or earlier_tree(path).keys() & {"generate", "traces", "rounds"}:
        raise UserError(
            f"eval: {folder} holds a run of another kind, whose summary and lock would be replaced. Give another "
            "--name, or name the models in eval.models of that run's recipe."
        )


def recipe_tree(asked: Request, models: list[str], name: str, path: Path) -> dict[str, Any]:
    """Return the recipe that measures models on suites.

    What an earlier call of the same run wrote stays as it is, unless it is given again; models stay with `--name`.
    """
    from distill.recipe.suites import merged

    before, section = earlier_tree(path), earlier_section(path)
    own = {"samples_per_problem": asked.samples, "limit": asked.limit}
    set_keys = {key: value for key, value in own.items() if value is not None}
    wanted = {suite: {"suite": suite, **set_keys} for suite in map(absolute, asked.suites)}
    benchmarks = [{"suite": one} if isinstance(one, str) else one for one in section.get("benchmarks") or ()]
    benchmarks = [merged(one, wanted.get(str(one.get("suite")), {})) for one in benchmarks]
    there = {one.get("suite") for one in benchmarks}
    others = [one for one in section.get("models") or () if asked.name is not None and one not in models]
    section["models"] = [*others, *models]
    section["benchmarks"] = [*benchmarks, *(one for suite, one in wanted.items() if suite not in there)]
    if asked.protocol is not None:
        section["protocol"] = asked.protocol
    if asked.judge is not None:
        judge = {"model": asked.judge, "compute": {"base_urls": [asked.judge_url]}}
        section["judge"] = merged(section.get("judge") or {}, judge)
    return {"description": "Written by distill eval --model.", **before, "name": name, "eval": section}


def with_settings(tree: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return a recipe's tree with the keys that `--set` sets, so that the file says all of what is run.

    Raises:
        RecipeError: one is not `key.path=value`, or has no such place in the tree.
        UserError: one is the run's name.
    """
    from distill.recipe.loading import override
    from distill.recipe.sources import anchor_sources

    name = tree["name"]
    override(tree, overrides, {})
    if tree["name"] != name:
        raise UserError(f"eval: --set name={tree['name']}: the run is named by --name. Write --name {tree['name']}.")
    anchor_sources(tree, Path.cwd(), "--set")
    return tree


def absolute(suite: str) -> str:
    """Return a suite's name; the path of a file does not depend on the working folder."""
    kind, _, path = suite.partition(":")
    return f"file:{Path(path).expanduser().resolve()}" if kind == "file" else suite


def models_of(asked: Request) -> list[str]:
    """Return the named models; the path of a folder does not depend on the working folder."""
    from distill.models.hub_names import names_folder

    return [str(Path(name).expanduser().resolve()) if names_folder(name) else name for name in asked.models]


def earlier_tree(path: Path) -> dict[str, Any]:
    """Return the recipe that an earlier call wrote, and somebody may have changed; empty if there is none.

    Raises:
        RecipeError: it is invalid.
    """
    from distill.recipe.loading import read_recipe

    return dict(read_recipe(path).tree) if path.is_file() else {}


def earlier_section(path: Path) -> dict[str, Any]:
    """Return the `eval:` of the recipe that an earlier call wrote; empty if there is none."""
    return dict(earlier_tree(path).get("eval") or {})


def write_recipe(path: Path, tree: Mapping[str, Any]) -> None:
    """Write a recipe as YAML."""
    import yaml

    from distill.storage.files import atomic_write

    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, yaml.safe_dump(dict(tree), sort_keys=False, allow_unicode=True))
