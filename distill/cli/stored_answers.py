"""`distill eval --from`: stored answers graded again, by our rules and by others', and written for other viewers."""

import dataclasses
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.cli.app import CommonOptions
from distill.cli.evaluation import RECIPE_FILE, Request, recipe_tree, without_place, write_recipe
from distill.cli.output import print_json, print_note, print_result
from distill.cli.tables import print_table
from distill.errors import RecipeError, UserError

if TYPE_CHECKING:
    from distill.evaluation.answers import Evaluation
    from distill.evaluation.replay import StoredAnswers
    from distill.recipe.filter import Judge
    from distill.recipe.model import Recipe
    from distill.results.measure import ModelsOnBenchmark

NUM_SHOWN = 20
"""Disputed answers that are listed on the terminal; `--json` gives all."""


def replay_stored(given: CommonOptions, asked: Request, of_round: str | None) -> None:
    """Grade stored answers again, without a model, and show what was asked for."""
    assert asked.source is not None
    if asked.export is not None:
        write_export(given, asked, of_round)
        return
    with tempfile.TemporaryDirectory(prefix="distill-eval-") as scratch:
        _show_stored(given, asked, stored_answers(given, asked, of_round, Path(scratch)))


def _show_stored(given: CommonOptions, asked: Request, stored: "StoredAnswers") -> None:
    """Show stored answers by other rules, the disputed ones of them, or their scores."""
    if asked.rules is not None:
        from distill.evaluation.other_rules import compare_rules, gaps_text

        found = compare_rules(stored, asked.rules)
        _show(given, [one.to_json() for one in found], gaps_text(found))
    elif asked.audit:
        from distill.evaluation.other_rules import audit_lines, audit_stored

        audits = audit_stored(stored, _judge(asked))
        _show(
            given,
            [one.to_json() for one in audits],
            "\n\n".join("\n".join(audit_lines(one, NUM_SHOWN)) for one in audits),
        )
    else:
        from distill.evaluation.replay import replay

        show_scores(given, replay(stored))


def _judge(asked: Request) -> "Judge | None":
    """Return the judge that an audit asks, if one is named.

    Raises:
        UserError: its server's address is none.
    """
    from pydantic import ValidationError

    from distill.recipe.filter import Judge

    if asked.judge is None:
        return None
    try:
        return Judge.model_validate({"model": asked.judge, "compute": {"base_urls": [asked.judge_url]}})
    except ValidationError:
        raise UserError(
            f"eval: --judge-url {asked.judge_url}: expected an address such as http://localhost:8000/v1, without user, "
            "password and query."
        ) from None


def _show(given: CommonOptions, rows: list[dict[str, Any]], text: str) -> None:
    if given.as_json:
        print_json({"schema_version": 1, "benchmarks": rows})
    else:
        print_result(text)


def show_scores(given: CommonOptions, benchmarks: "list[ModelsOnBenchmark]") -> None:
    """Print the scores of models on benchmarks."""
    from distill.cli.scores import models_table

    if given.as_json:
        print_json({"schema_version": 1, "benchmarks": [one.to_json() for one in benchmarks]})
    else:
        print_table(models_table(benchmarks))


def evaluation_folder(given: CommonOptions, name: str, of_round: str | None) -> Path:
    """Return the folder of a run's evaluation, finished or not; of several rounds that of the last.

    Args:
        given: the common options.
        name: a run by name or path, or one of its evaluations, such as `RUN/measure`.
        of_round: the round of the run.

    Raises:
        UserError: the run has none, or several of which none is named.
    """
    from distill.core.formatting import mapping
    from distill.results.eval import EvalMetrics
    from distill.results.kinds import stage_with
    from distill.results.measure import MeasureMetrics
    from distill.runs.listing import find_run
    from distill.storage.files import read_object
    from distill.storage.layout import PROBLEMS, SUMMARY
    from distill.storage.run_folder import is_run

    stages = [stage_with(EvalMetrics), stage_with(MeasureMetrics)]
    head, _, tail = name.rstrip("/").rpartition("/")
    if head and tail in stages and not is_run(Path(name)):
        name, stages = head, [tail]
    run = find_run(given.run_dir, name)
    found = [path for at in ("*", "*/*") for path in run.glob(f"{at}/{PROBLEMS}") if path.parent.name in stages]
    by_round: dict[str, list[Path]] = {}
    for path in sorted(found):
        folder = path.parent
        by_round.setdefault("" if folder.parent == run else folder.parent.name, []).append(folder)
    rounds = [one for one in mapping((read_object(run / SUMMARY) or {}).get("rounds")) if one in by_round]
    rounds += [one for one in by_round if one not in rounds]
    if of_round is not None and of_round not in by_round:
        there = f"There are evaluations of: {', '.join(filter(None, rounds))}." if any(rounds) else "Leave --round out."
        raise UserError(f"eval: --round {of_round}: {run} has no evaluation of such a round. {there}")
    if not rounds:
        raise UserError(f"{run}: nothing is evaluated there yet. Run `distill eval` first.")
    chosen = rounds[-1] if of_round is None else of_round
    if len(by_round[chosen]) > 1:
        ways = " or ".join(f"--from {folder}" for folder in by_round[chosen])
        raise UserError(f"eval: --from {name}: {run} has several evaluations. Name one: {ways}.")
    if of_round is None and len(rounds) > 1:
        print_note(f"The evaluation of round {chosen}, the last of {', '.join(rounds)}; --round names another.")
    return by_round[chosen][0]


def stored_answers(given: CommonOptions, asked: Request, of_round: str | None, scratch: Path) -> "StoredAnswers":
    """Return the answers of a run, or of a file together with the suites that they belong to.

    Args:
        given: the common options.
        asked: the command's own options.
        of_round: the round of a run.
        scratch: an empty folder, for grades of the answers in a file.

    Raises:
        UserError: there is no such run or file, no suite is named for a file, or the answers are to other questions.
    """
    from distill.evaluation.replay import answers_of_file, answers_of_run, with_samples_of

    assert asked.source is not None
    if not asked.is_of_file:
        folder = evaluation_folder(given, asked.source, of_round)
        if asked.suites or (asked.judge and not asked.audit):
            option = "--suite" if asked.suites else "--judge"
            raise UserError(f"eval: {option} goes with --from FILE; {asked.source} is a run, which names its own.")
        recipe = recorded_recipe(folder)
        assert recipe.eval is not None
        return answers_of_run(folder, recipe.eval, recipe.seed, recipe.sandbox)
    if not asked.suites:
        raise UserError(f"eval: --from {asked.source} needs --suite, the suite that the answers are to.")
    evaluation = evaluation_of_suites(given, asked, scratch)
    found = answers_of_file(Path(asked.source).expanduser(), evaluation)
    traces = next(iter(found.traces.values()))
    return dataclasses.replace(found, evaluation=with_samples_of(evaluation, traces))


def recorded_recipe(folder: Path) -> "Recipe":
    """Return the recipe that an evaluation belongs to, which has `eval:`.

    Raises:
        UserError: they cannot be told.
    """
    from pydantic import ValidationError

    from distill.recipe.model import recipe_of_tree
    from distill.storage.files import read_object
    from distill.storage.layout import SUMMARY
    from distill.storage.run_folder import StageFolder

    manifest = StageFolder(folder).manifest or {}
    trees = [manifest.get("recipe"), (read_object(folder.parent / SUMMARY) or {}).get("recipe")]
    for tree in trees:
        try:
            recipe = recipe_of_tree(tree)
        except ValidationError:
            continue
        if recipe.eval is not None:
            return recipe
    raise UserError(f"{folder}: the recipe of this evaluation is not recorded. Run `distill eval` again.")


def evaluation_of_suites(given: CommonOptions, asked: Request, scratch: Path) -> "Evaluation":
    """Return what the named suites ask, for answers that were made elsewhere.

    Raises:
        UserError: a suite is unknown or cannot be loaded.
    """
    from distill.evaluation.answers import Evaluation
    from distill.evaluation.measured_sets import measured_sets, with_baselines
    from distill.recipe.loading import read_recipe
    from distill.sources.problems import load_problem_sets
    from distill.storage.layout import FACTS_FILE, TESTS

    path = scratch / RECIPE_FILE
    write_recipe(path, recipe_tree(asked, ["answers/elsewhere"], "answers", path))
    try:
        recipe = read_recipe(path, given.overrides or ()).recipe
    except RecipeError as error:
        raise without_place(error, path) from None
    assert recipe.eval is not None
    benchmarks = with_baselines(recipe, load_problem_sets(recipe, scratch / TESTS).benchmarks)
    sets = measured_sets(recipe, benchmarks)
    problems = {problem.id: problem for several in benchmarks.values() for problem in several}
    config, seed, facts = recipe.eval, recipe.seed, scratch / FACTS_FILE
    return Evaluation(scratch, sets, problems, config, seed, facts, sandbox=recipe.sandbox)


def write_export(given: CommonOptions, asked: Request, of_round: str | None) -> None:
    """Write a run's evaluation for the viewers of other tools."""
    from distill.evaluation.measured_sets import read_sets
    from distill.exchange.inspect_log import write_inspect_logs
    from distill.exchange.lighteval_details import write_lighteval_details
    from distill.storage.layout import BENCHMARKS

    assert asked.source is not None
    assert asked.export is not None
    kind, _, target = asked.export.partition(":")
    if not target:
        raise UserError(f"eval: --export {asked.export}: expected a folder, {kind}:DIR.")
    folder = evaluation_folder(given, asked.source, of_round)
    withheld = [one.name for one in read_sets(folder / BENCHMARKS) if one.canary]
    write = write_inspect_logs if kind == "inspect" else write_lighteval_details
    files = write(folder, Path(target), withheld)
    if given.as_json:
        print_json({"schema_version": 1, "files": [str(file) for file in files]})
    else:
        print_result("\n".join(str(file) for file in files))
        viewer = f"inspect view --log-dir {target}" if kind == "inspect" else "datasets.load_dataset('parquet', …)"
        print_note(f"{len(files)} files; open them with {viewer}.")
