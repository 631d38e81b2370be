"""The stages as commands, and `distill run` for all of them in order."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from distill.cli.app import CommonOptions, recipe_command
from distill.cli.output import console, print_json, print_note, print_result
from distill.cli.students import show_memory_plan
from distill.cli.tables import print_table
from distill.errors import UserError
from distill.recipe.steps import MAKING_MODELS, PUBLISHING, STAGE_NAMES
from distill.results.kinds import command_for

if TYPE_CHECKING:
    from distill.recipe.model import Recipe

RoundOption = Annotated[
    str | None,
    typer.Option("--round", metavar="NAME", help="The round, in a recipe with rounds:. Default: all that have it."),
]


@recipe_command(
    about="Run all stages of a recipe, skipping those that are done.",
    examples=[
        "distill run",
        "distill run --until cold-start  # or a step, such as cold-start/filter",
        "distill run recipe.yaml --student qwen-7b --run-dir /data/runs",
        "distill run runs/quickstart/recipe.lock.yaml  # repeats that run and says what differs",
    ],
)
def run(
    given: CommonOptions,
    rounds: Annotated[
        str | None, typer.Option("--rounds", metavar="A,B", help="Only these rounds; left out: all of the recipe.")
    ] = None,
    until: Annotated[
        str | None,
        typer.Option("--until", metavar="STEP", help="The last step: sft, or with rounds: ROUND/sft or a ROUND."),
    ] = None,
    past_gate: Annotated[
        list[str] | None,
        typer.Option("--past-gate", metavar="ROUND", help="Go on although the gate of this round does not hold."),
    ] = None,
) -> None:
    """Run all stages."""
    names = None if rounds is None else [name.strip() for name in rounds.split(",")]
    run_stages(None, given, rounds=names, until=until, past_gates=past_gate or ())


@recipe_command(
    about="Sample the teacher on each problem; draws only what is missing.",
    examples=[
        "distill generate",
        "distill generate --status  # shows the progress while it runs",
        "distill generate --set generate.samples_per_problem=8  # draws only what is missing",
    ],
)
def generate(
    given: CommonOptions,
    status: Annotated[
        bool, typer.Option("--status", help="Only show the progress, as recorded in files; starts nothing.")
    ] = False,
    retry_errors: Annotated[bool, typer.Option("--retry-errors", help="Retry samples that ended in errors.")] = False,
    of_round: RoundOption = None,
) -> None:
    """Sample the teacher, or show the progress."""
    if status and retry_errors:
        raise UserError("generate: --status starts nothing, and --retry-errors samples; give one of them.")
    if status:
        _refuse_force(given, "generate: --status")
        _show_status(given, of_round)
    else:
        run_stages(given.command, given, retry_errors=retry_errors, rounds=_only(of_round))


@recipe_command(
    about="Read traces made elsewhere (the recipe's traces: section).",
    examples=[
        "distill import recipe.yaml",
    ],
)
def import_(given: CommonOptions, of_round: RoundOption = None) -> None:
    """Import existing traces."""
    run_stages(given.command, given, rounds=_only(of_round))


@recipe_command(
    about="Keep the correct, readable and uncontaminated traces; every drop has its reasons.",
    examples=[
        "distill filter",
        "distill filter --explain p17/2  # everything about one trace",
        "distill filter --check-tests  # task: code: which problems' own solutions fail their tests?",
    ],
)
def filter_(
    given: CommonOptions,
    explain: Annotated[
        str | None,
        typer.Option(
            "--explain", metavar="ID", help="Explain one trace (problem_id/sample_index), or all of a problem."
        ),
    ] = None,
    check_tests: Annotated[
        bool,
        typer.Option(
            "--check-tests",
            help="Only run the own solution of each problem of task: code against its tests; those that fail grade no "
            "answer. Needs no traces.",
        ),
    ] = False,
    of_round: RoundOption = None,
) -> None:
    """Filter the traces, explain one, or check the tests of code problems."""
    if explain is not None and check_tests:
        raise UserError("filter: --explain and --check-tests cannot be combined; give one of them.")
    if check_tests:
        _refuse_force(given, "filter: --check-tests")
        _check_tests(given, of_round)
    elif explain is not None:
        _refuse_force(given, "filter: --explain")
        _explain(given, explain, of_round)
    else:
        run_stages(given.command, given, rounds=_only(of_round))


@recipe_command(
    about="Fine-tune the student on the kept traces.",
    examples=[
        "distill sft --student qwen-1.5b",
        "distill sft --check  # rows as they will be trained; no weights",
        "distill sft --plan --gpus 8 --gpu-memory 80 --student all",
    ],
)
def sft(
    given: CommonOptions,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Only check the kept rows as they will be trained, and show what training will take; loads no "
            "weights. Exit code 2 if they would be trained wrongly.",
        ),
    ] = False,
    plan: Annotated[
        bool,
        typer.Option(
            "--plan",
            help="Only estimate memory and layouts, from the recipe's sft: or the defaults, for its student, --student "
            "or (--student all, or no recipe) every alias; loads nothing.",
        ),
    ] = False,
    gpus: Annotated[
        int | None, typer.Option("--gpus", min=1, help="With --plan: number of GPUs; left out: this machine's, else 8.")
    ] = None,
    gpu_memory: Annotated[
        float | None,
        typer.Option(
            "--gpu-memory", min=1, help="With --plan: GiB of memory of a GPU; left out: this machine's, else 80."
        ),
    ] = None,
    of_round: RoundOption = None,
) -> None:
    """Train the student, check its rows, or plan its memory."""
    if check or plan:
        _refuse_force(given, f"sft: {'--check' if check else '--plan'}")
    if check and plan:
        raise UserError("sft: --check and --plan cannot be combined; give one of them.")
    if not plan and (gpus or gpu_memory):
        raise UserError("sft: --gpus and --gpu-memory go with --plan. Training uses the GPUs of this machine.")
    if check:
        _check_sft(given, of_round)
    elif plan:
        show_memory_plan(given, gpus, gpu_memory, of_round)
    else:
        run_stages(given.command, given, rounds=_only(of_round))


@recipe_command(
    about="Improve the student by reinforcement learning on the recipe's problems.",
    examples=[
        "distill rl",
        "distill rl --check  # rewards of a handful of answers, and what training will take; trains nothing",
        "distill rl --set rl.steps=200 --set rl.method=lora",
    ],
)
def rl(
    given: CommonOptions,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Only sample a handful of answers and show their rewards by part, how many groups have different "
            "ones, and what training will take.",
        ),
    ] = False,
    of_round: RoundOption = None,
) -> None:
    """Train the student by reinforcement learning, or try its rewards."""
    if check:
        _refuse_force(given, "rl: --check")
        _check_rl(given, of_round)
    else:
        run_stages(given.command, given, rounds=_only(of_round))


@recipe_command(
    about="Measure base and student on problems never trained on; or any models on any suites.",
    examples=[
        "distill eval",
        "distill eval --model Qwen/Qwen2.5-0.5B-Instruct --suite gsm8k --suite math-500 --limit 50",
        "distill eval --from quickstart --as lighteval  # the same answers by other rules, without a model",
        "distill eval --from answers.jsonl --suite aime24 --audit",
        "distill eval --suite math-500 --check-harness  # does a published score come out?",
    ],
)
def eval_(
    given: CommonOptions,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", metavar="MODEL", help="Measure this model, without a recipe. Repeatable."),
    ] = None,
    suite: Annotated[
        list[str] | None,
        typer.Option("--suite", metavar="SUITE", help="With --model: on this suite (distill suites ls). Repeatable."),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="With --model: name of the run. Default: made from the models.")
    ] = None,
    samples: Annotated[
        int | None, typer.Option("--samples", metavar="K", min=1, help="With --model: samples of each problem.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", metavar="N", min=1, help="With --model: N problems of each suite, drawn.")
    ] = None,
    protocol: Annotated[
        str | None, typer.Option("--protocol", help="With --model: a named protocol, such as r1-paper.")
    ] = None,
    judge: Annotated[
        str | None, typer.Option("--judge", metavar="MODEL", help="With --model or --audit: the judge's name.")
    ] = None,
    judge_url: Annotated[
        str | None, typer.Option("--judge-url", metavar="URL", help="With --judge: its server, http://host:8000/v1.")
    ] = None,
    source: Annotated[
        str | None,
        typer.Option("--from", metavar="RUN|FILE", help="Only grade stored answers: a run's, or those of a file."),
    ] = None,
    rules: Annotated[
        str | None,
        typer.Option(
            "--as",
            metavar="HARNESS",
            help="With --from: by the rules of lighteval, simple-evals, evalchemy or nemo-skills.",
        ),
    ] = None,
    audit: Annotated[
        bool,
        typer.Option("--audit", help="With --from: list the answers on which extractors, or rule and --judge, differ."),
    ] = False,
    via: Annotated[
        str | None,
        typer.Option("--via", metavar="inspect:TASK", help="With --model: run a task of inspect-evals against it."),
    ] = None,
    inspect_python: Annotated[
        Path | None,
        typer.Option("--inspect-python", metavar="PATH", help="With --via: the Python that has inspect_ai installed."),
    ] = None,
    check_harness: Annotated[
        bool,
        typer.Option(
            "--check-harness", help="With --suite: measure its reference model; does the published score come out?"
        ),
    ] = False,
    export: Annotated[
        str | None,
        typer.Option("--export", metavar="FORMAT:DIR", help="With --from: write inspect:DIR or lighteval:DIR."),
    ] = None,
    retry_errors: Annotated[
        bool, typer.Option("--retry-errors", help="Ask again for samples and verdicts that failed.")
    ] = False,
    of_round: RoundOption = None,
) -> None:
    """Measure base and student, any models, or stored answers."""
    from distill.cli.evaluation import Request, measure
    from distill.cli.harness_check import check_references
    from distill.cli.stored_answers import replay_stored
    from distill.cli.via_inspect import run_via

    asked = Request(
        models=tuple(model or ()),
        suites=tuple(suite or ()),
        name=name,
        samples=samples,
        limit=limit,
        protocol=protocol,
        judge=judge,
        judge_url=judge_url,
        source=source,
        rules=rules,
        audit=audit,
        via=via,
        inspect_python=inspect_python,
        check_harness=check_harness,
        export=export,
        retry_errors=retry_errors,
        of_round=of_round,
    )
    asked.refuse_contradictions(given)
    if source is not None:
        _refuse_force(given, "eval: --from")
        replay_stored(given, asked, of_round)
    elif asked.via is not None:
        run_via(given, asked)
    elif asked.check_harness:
        check_references(given, asked, partial(run_stages, retry_errors=retry_errors))
    elif asked.is_of_models:
        measure(given, asked, partial(run_stages, retry_errors=retry_errors))
    else:
        run_stages(given.command, given, retry_errors=retry_errors, rounds=_only(of_round))


@recipe_command(
    about="Publish the student, and if asked its training data, on the Hugging Face Hub.",
    examples=[
        "distill push --dry-run",
        "distill push --repo my-org/qwen-1.5b-math --public",
    ],
)
def push(
    given: CommonOptions,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the cards and the exact files, without contacting the Hub.")
    ] = False,
    repo: Annotated[
        str | None, typer.Option("--repo", metavar="ORG/NAME", help="Model repository; overrides push.repo.")
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="Create repositories as public (default: private).")] = False,
    private: Annotated[
        bool, typer.Option("--private", help="Create repositories as private; overrides push.private.")
    ] = False,
    accept_licence: Annotated[
        bool,
        typer.Option("--accept-licence", help="Push although the teacher's licence forbids training on its output."),
    ] = False,
    replace_readme: Annotated[
        bool, typer.Option("--replace-readme", help="Replace a README.md on the Hub that distill did not write.")
    ] = False,
    of_round: RoundOption = None,
) -> None:
    """Publish, or show what would be published."""
    if public and private:
        raise UserError("push: --public and --private contradict each other; give one of them.")
    if dry_run:
        _refuse_force(given, "push: --dry-run")
    flags = {
        "push.repo": repo,
        "push.round": of_round,
        "push.private": private if public or private else None,
        "push.accept_licence": accept_licence or None,
        "push.replace_readme": replace_readme or None,
    }
    if dry_run:
        _show_publication(given, flags)
    else:
        run_stages(given.command, given, flags=flags)


def _refuse_force(given: CommonOptions, option: str) -> None:
    """Refuse `--force` together with an option that changes nothing.

    Raises:
        UserError: both were given.
    """
    if given.force:
        raise UserError(f"{option} changes nothing, and --force moves results aside; give one of them.")


def _only(of_round: str | None) -> list[str] | None:
    return None if of_round is None else [of_round]


def run_stages(
    stage: str | None,
    given: CommonOptions,
    retry_errors: bool = False,
    flags: dict[str, Any] | None = None,
    rounds: Sequence[str] | None = None,
    until: str | None = None,
    past_gates: Sequence[str] = (),
    accepted: Callable[[], None] = lambda: None,
) -> None:
    """Run the stages of one command, or all stages of the recipe (`None`), and show the result.

    Args:
        stage: the command's stage.
        given: the common options.
        retry_errors: retry samples that ended in errors.
        flags: the command's own options by the key that they override.
        rounds: as for `run_recipe`.
        until: as for `run_recipe`.
        past_gates: as for `run_recipe`.
        accepted: called once the first stage begins, or all are found to be done.
    """
    from distill.errors import RecipeError
    from distill.execution.launchers import Follower, joined, launched_place
    from distill.runs.listing import note_command
    from distill.runs.runner import run_recipe
    from distill.runs.steps import chosen_part
    from distill.stages.table import STAGES

    place = launched_place()
    take_part = getattr(STAGES.get(stage or ""), "take_part", None)
    if place is not None and take_part is None:
        raise UserError(
            f"{place.world_size} processes were started, and only `distill sft` and `distill rl` share their work "
            "among several. Run the other stages in one process; they use all GPUs of the machine by themselves."
        )
    loaded = given.load_whole(flags)
    recipe = loaded.recipe
    if stage is not None:
        _need_section(given, stage, recipe)
    if recipe.only_measures and stage not in (None, *map(command_for, recipe.stage_names)):
        raise RecipeError(
            f"{given.recipe}: has neither generate: nor traces:, only models to measure. `distill eval` measures them."
        )
    stages = None if stage is None else _stages_of(stage, recipe)
    run_dir = given.run_dir / recipe.name
    with joined(place, run_dir) as member:
        if isinstance(member, Follower):
            assert take_part is not None
            assert stage is not None
            part = chosen_part(recipe, stage, rounds[0] if rounds else None)
            take_part(run_dir / (part.round_name or ""), member)
            return
        say_step = _silent if given.quiet else print_note
        words = [*given.arguments(), *_as_settings(flags or {})]
        words += ["--round", rounds[0]] if stage is not None and rounds else []

        def begin() -> None:
            note_command(run_dir, recipe, stage, words)
            accepted()

        summary = run_recipe(
            recipe,
            given.run_dir,
            stages,
            given.force,
            say_step,
            retry_errors,
            leader=member,
            accepted=begin,
            rounds=rounds,
            until=until,
            past_gates=past_gates,
        )
    comparison = None if loaded.lock is None else _compare_with(loaded.lock, recipe, given.run_dir / recipe.name)
    if given.as_json:
        print_json(summary if comparison is None else {**summary, "repeat": comparison})
    elif not given.quiet:
        _print_closing(recipe, summary, given.run_dir)
        if comparison is not None:
            from distill.runs.repetition import comparison_lines

            print_result("\n".join(comparison_lines(comparison)))


def _need_section(given: CommonOptions, stage: str, recipe: "Recipe") -> None:
    """Raise if a recipe has no section for a command's stage."""
    from distill.errors import RecipeError
    from distill.stages.table import STAGES

    section = STAGES[stage].SECTION
    if not any(getattr(part, section) for part in recipe.parts):
        way = ", or name a repository with --repo org/name" if stage == PUBLISHING else f" to use `distill {stage}`"
        raise RecipeError(f"{given.recipe}: has no {section}: section. Add one{way}.")


def _stages_of(command: str, recipe: "Recipe") -> list[str]:
    """Return the stages that a command runs: `distill eval` also measures the models of `eval.models`."""
    there = {name for part in recipe.parts for name in part.stage_names}
    return [name for name in STAGE_NAMES if command_for(name) == command and name in there] or [command]


def _as_settings(flags: Mapping[str, Any]) -> list[str]:
    """Return a command's own flags as `--set`, which every command accepts."""
    given = {key: value for key, value in flags.items() if value is not None}
    return [word for key, value in given.items() for word in ("--set", f"{key}={json.dumps(value)}")]


def _compare_with(lock: Mapping[str, Any], recipe: "Recipe", run_dir: Path) -> dict[str, Any]:
    """Compare a repetition with the run of its lock, and write the comparison to its folder."""
    from distill.recipe.expand import expand
    from distill.runs.repetition import COMPARISON_FILE, compare
    from distill.storage.files import write_json
    from distill.storage.run_folder import StageFolder

    found = {name: StageFolder(run_dir / name).manifest for name in [step.id for step in expand(recipe)]}
    comparison = compare(lock, {name: manifest for name, manifest in found.items() if manifest is not None})
    write_json(run_dir / COMPARISON_FILE, comparison)
    return comparison


def _check_sft(given: CommonOptions, of_round: str | None) -> None:
    from distill.runs.sft_check import check_sft, print_check

    found = check_sft(given.load(), given.run_dir, of_round)
    if given.as_json:
        print_json({"schema_version": 1, **found.to_json()})
    else:
        print_check(found, console())
    try:
        found.preflight.raise_if_refused()
    except UserError as refusal:
        print_note(f"Error: {refusal}")  # on standard error: the JSON contains the refusals already
        raise typer.Exit(refusal.exit_code) from None


def _check_rl(given: CommonOptions, of_round: str | None) -> None:
    from distill.runs.rl_check import check_rl

    recipe = given.load()
    _need_section(given, given.command, recipe)
    found = check_rl(recipe, given.run_dir, of_round)
    if given.as_json:
        print_json({"schema_version": 1, **found.to_json()})
    else:
        print_result("\n".join(found.lines()))


def _show_publication(given: CommonOptions, flags: dict[str, Any]) -> None:
    from distill.publish.preview import plan_json, plan_text
    from distill.runs.steps import chosen_run
    from distill.stages.push import dry_run

    recipe = given.load(flags)
    plan = dry_run(chosen_run(recipe, given.run_dir / recipe.name, given.command, None))
    if given.as_json:
        print_json(plan_json(plan))
    else:
        print_result(plan_text(plan, min(100, console().width)))


def _show_status(given: CommonOptions, of_round: str | None) -> None:
    from distill.runs.steps import chosen_part
    from distill.sampling.status import sampling_status, status_lines

    recipe = chosen_part(given.load(), given.command, of_round)
    price = recipe.generate.price if recipe.generate else None
    status = sampling_status(_folder(given, recipe) / given.command, price)
    if given.as_json:
        print_json(status)
    else:
        print_result("\n".join(status_lines(status)))


def _folder(given: CommonOptions, part: "Recipe") -> Path:
    """Return the folder of a round, or of a run without rounds."""
    return given.run_dir / part.name / (part.round_name or "")


def _explain(given: CommonOptions, wanted: str, of_round: str | None) -> None:
    from distill.runs.explain import explain, story
    from distill.runs.steps import chosen_part

    recipe = chosen_part(given.load(), given.command, of_round)
    found = explain(_folder(given, recipe), recipe.traces_stage, wanted)
    if given.as_json:
        print_json(found)
    else:
        print_result("\n".join(story(found)))


def _check_tests(given: CommonOptions, of_round: str | None) -> None:
    from distill.core.terminal import printable
    from distill.runs.solutions_check import check_solutions
    from distill.runs.steps import chosen_run

    recipe = given.load()
    found = check_solutions(chosen_run(recipe, given.run_dir / recipe.name, given.command, of_round))
    if given.as_json:
        print_json(found.to_json())
    else:
        print_result("\n".join(map(printable, found.lines())))


def _silent(text: str) -> None:
    pass


def _print_closing(recipe: "Recipe", summary: dict[str, Any], run_dir: Path) -> None:
    """Print the scores, and where to find the results."""
    from distill.cli.scores import models_table, rounds_table, score_table
    from distill.core.formatting import mapping
    from distill.results.eval import EvalMetrics
    from distill.results.kinds import metrics_in
    from distill.results.measure import MeasureMetrics
    from distill.storage.layout import SUMMARY
    from distill.storage.run_files import RunFiles

    folder = run_dir / recipe.name
    if (scores := metrics_in(summary, EvalMetrics)) is not None:
        print_table(score_table(scores, scores.benchmarks))
    if (measured := metrics_in(summary, MeasureMetrics)) is not None:
        print_table(models_table(measured.benchmarks))
    if summary.get("scores", {}).get("models"):
        print_table(rounds_table(summary["scores"]))
    if _is_newer(folder / "report.html", folder / SUMMARY):  # a failed write was reported by the run
        print_result(f"Report:  {folder / 'report.html'}")
    for name, one in summary.get("rounds", {"": summary}).items():
        if made := [stage for stage in MAKING_MODELS if stage in one]:
            student = RunFiles(folder / name, made[-1]).student
            print_result(f"{f'Student of {name}:' if name else 'Student:'} {student}")
        if url := mapping(one.get(PUBLISHING)).get("url"):
            print_result(f"On the Hub: {url}")


def _is_newer(one: Path, other: Path) -> bool:
    """Return whether a file exists and is at least as new as another one."""
    try:
        return one.is_file() and one.stat().st_mtime_ns >= other.stat().st_mtime_ns
    except OSError:
        return False
