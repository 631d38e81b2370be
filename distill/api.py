"""Running recipes from Python, and reading their results.

Example:

    result = run("recipe.yaml", run_dir="runs", student="qwen-1.5b")
    print(result.student_score.pass_at_1, result.folder / "report.html")
"""

import contextlib
import html
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from distill.core.progress import QUIET
from distill.core.records import FinishReason, Problem, Trace, Verdict, problem_id
from distill.core.terminal import printable
from distill.core.thinking import split_reasoning
from distill.errors import RecipeError, UserError
from distill.estimates.machine import chosen_machine
from distill.estimates.prices import load_prices
from distill.evaluation.answers import Answers
from distill.evaluation.scoring import score_answers
from distill.recipe.diff import Difference, recipe_differences, recipe_of
from distill.recipe.expand import expand
from distill.recipe.loading import load_recipe, read_recipe, recipe_of_dict
from distill.recipe.model import Recipe
from distill.recipe.problems import Task
from distill.recipe.steps import MAKING_MODELS, PUBLISHING, STAGE_NAMES
from distill.report import Run, gather_any, render_any
from distill.report.compare import compare_runs
from distill.results.eval import EvalMetrics, EvalResult
from distill.results.kinds import kind_of, metrics_in
from distill.runs.doctor import Diagnosis, diagnose
from distill.runs.listing import find_run
from distill.runs.plan import Plan
from distill.runs.rounds_plan import RoundsPlan, plan_any
from distill.runs.runner import run_recipe
from distill.stages.table import STAGES
from distill.storage.case_files import at_home
from distill.storage.files import atomic_write, read_jsonl, read_object
from distill.storage.layout import PROBLEMS, REPORT, SUMMARY
from distill.storage.run_files import RunFiles
from distill.storage.shards import readable
from distill.storage.trace_store import stored_traces

RecipeGiven = Recipe | Mapping[str, Any] | str | Path


@dataclass(frozen=True, slots=True)
class RunResult:
    """A run, finished or not: its summary, and access to its records."""

    summary: dict[str, Any]
    """The content of `summary.json` (docs/json.md); a stage that is not complete has no key."""
    folder: Path
    """`runs/<name>`."""

    @property
    def name(self) -> str:
        """Return the name of the run and of its folder."""
        return str(self.summary["name"])

    @property
    def report(self) -> Path:
        """Return the path of the report, an HTML page."""
        return self.folder / REPORT

    @property
    def rounds(self) -> dict[str, "RunResult"]:
        """Return the result of each round that has begun, in order; empty if the recipe has no rounds."""
        folders = {name: self.folder / name for name in self.summary.get("rounds", {})}
        found = {name: read_object(folder / SUMMARY) for name, folder in folders.items()}
        return {name: RunResult(summary, folders[name]) for name, summary in found.items() if summary is not None}

    @property
    def _final(self) -> "RunResult":
        """Return the last round that made a model; the run itself if it has no rounds."""
        return next((one for one in reversed(self.rounds.values()) if one.student is not None), self)

    @property
    def student(self) -> Path | None:
        """Return the folder of the last trained student, for transformers and vLLM; `None` before training."""
        if "rounds" in self.summary:
            return None if self._final is self else self._final.student
        made = [stage for stage in MAKING_MODELS if stage in self.summary]
        return RunFiles(self.folder, made[-1]).student if made else None

    @property
    def base_score(self) -> EvalResult | None:
        """Return the score of the student before training, or `None` if there was no evaluation."""
        scores = metrics_in(self._final.summary, EvalMetrics)
        return None if scores is None else scores.base

    @property
    def student_score(self) -> EvalResult | None:
        """Return the score of the trained student, or `None` if there was no evaluation."""
        scores = metrics_in(self._final.summary, EvalMetrics)
        return None if scores is None else scores.student

    @property
    def gain(self) -> dict[str, Any] | None:
        """Return the paired difference: `pass_at_1`, `interval_95` (shares), `num_gained`, `num_lost` (problems)."""
        scores = metrics_in(self._final.summary, EvalMetrics)
        return None if scores is None else scores.difference.to_json()

    def problems(self) -> list[Problem]:
        """Return the problems that the traces answer."""
        folder = self._traces_folder
        return [at_home(Problem.from_json(row), folder) for row in read_jsonl(folder / PROBLEMS)]

    def traces(self) -> Iterator[Trace]:
        """Iterate over all traces, ordered by identity."""
        return stored_traces(self._traces_folder)

    def verdicts(self) -> Iterator[Verdict]:
        """Iterate over the filter's verdicts on the traces, in the same order."""
        self._refuse_rounds()
        return (Verdict.from_json(row) for row in read_jsonl(RunFiles(self.folder).verdicts))

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the training rows: TRL's `prompt` and `completion`, and the trace's own columns."""
        import pyarrow.parquet as pq

        self._refuse_rounds()
        for shard in sorted(RunFiles(self.folder).kept.glob("*.parquet")):
            with readable(shard):
                for batch in pq.ParquetFile(shard).iter_batches():
                    yield from batch.to_pylist()

    @property
    def _traces_folder(self) -> Path:
        self._refuse_rounds()
        files = RunFiles(self.folder)
        return files.imported if self.summary["recipe"]["traces"] else files.sampled

    def _refuse_rounds(self) -> None:
        if "rounds" in self.summary:
            name = next(iter(self.summary["rounds"]))
            raise UserError(f"the run has rounds, each with records of its own: result.rounds[{name!r}] and so on.")

    def _lines(self) -> list[tuple[str, str]]:
        parts = {f"{name}/": one.summary for name, one in self.rounds.items()} or {"": self.summary}
        done = [
            (f"{prefix}{name}", STAGES[name].headline(kind_of(name).metrics.from_json(summary[name])))
            for prefix, summary in parts.items()
            for name in STAGE_NAMES
            if name in summary
        ]
        return [*done, ("report", str(self.report))]

    def __repr__(self) -> str:
        return "\n".join([f"run {self.name}", *(f"  {name:<9} {text}" for name, text in self._lines())])

    def _repr_html_(self) -> str:
        """Return the result as an HTML table, for notebooks."""
        rows = "".join(f"<tr><th>{name}</th><td>{html.escape(text)}</td></tr>" for name, text in self._lines())
        return f"<table><caption>run {html.escape(self.name)}</caption>{rows}</table>"


def run(
    recipe: Recipe | Mapping[str, Any] | str | Path = "recipe.yaml",
    *,
    stages: Sequence[str] | None = None,
    run_dir: str | Path = "runs",
    overrides: Sequence[str] = (),
    student: str | None = None,
    teacher: str | None = None,
    force: bool = False,
    retry_errors: bool = False,
    say: Callable[[str], None] | None = None,
    quiet: bool = False,
    rounds: Sequence[str] | None = None,
    until: str | None = None,
    past_gates: Sequence[str] = (),
) -> RunResult:
    """Run a recipe's stages, skipping those that are done, like `distill run`.

    Works in a notebook and outside the main thread. After an interrupt (Ctrl-C, the stop button), finished work is kept
    and the same call resumes. Engines and training run in child processes.

    Args:
        recipe: a file, the name of an installed recipe, a reference to one outside (`hf:…`, `git+…`) that was accepted
            on the command line, a dict with the same keys as a file, or a recipe.
        stages: names of stages (`generate`, `import`, `filter`, `sft`, `eval`, `measure`, `push`). Default: all of the
            recipe.
        run_dir: folder in which `<recipe name>/` is created.
        overrides: `key.path=value`, as for `--set`; only for a recipe file, like `student` and `teacher`.
        student: alias, Hub id or folder.
        teacher: Hub id, folder or alias.
        force: move results of a changed recipe aside instead of stopping.
        retry_errors: retry the samples that ended in errors.
        say: called with a line for each step. Default: prints to standard error.
        quiet: show no progress and no notes.
        rounds: names of rounds. Default: all of the recipe.
        until: the last step: a stage, or with rounds `<round>/<stage>` or a round.
        past_gates: rounds whose gates do not stop the run.

    Raises:
        UserError: the request is invalid; the message says what to do.
        DistillError: a stage failed or a gate does not hold; finished work is kept.
    """
    made = as_recipe(recipe, overrides, student, teacher)
    if stages is not None and not stages:
        raise UserError("run: stages is empty. Leave it out to run all stages of the recipe.")
    if unknown := sorted(set(stages or ()) - STAGES.keys()):
        raise UserError(f"stages: unknown {', '.join(unknown)}. There are: {', '.join(STAGES)}.")
    there = list(dict.fromkeys(step.stage for step in expand(made)))
    if lacking := [name for name in STAGES if name in (stages or ()) and name not in {*there, PUBLISHING}]:
        section = STAGES[lacking[0]].SECTION
        raise UserError(
            f"stages: {', '.join(lacking)}: recipe {made.name} has no {section}: section. Its stages are: "
            f"{', '.join(there)}."
        )
    tell = (lambda text: None) if quiet else say or _to_standard_error
    with _quiet(quiet):
        summary = run_recipe(
            made,
            Path(run_dir),
            stages,
            force,
            tell,
            retry_errors,
            rounds=rounds,
            until=until,
            past_gates=past_gates,
        )
    return RunResult(summary, Path(run_dir) / made.name)


def as_recipe(
    recipe: Recipe | Mapping[str, Any] | str | Path,
    overrides: Sequence[str] = (),
    student: str | None = None,
    teacher: str | None = None,
) -> Recipe:
    """Return a recipe, given by reference (a file, an installed one, one from outside), as a dict or as itself.

    Raises:
        RecipeError: it is invalid, or there are overrides although it is not given by reference.
    """
    if isinstance(recipe, str | Path):
        return load_recipe(recipe, overrides, {"student": student, "generate.teacher": teacher})
    if overrides or student or teacher:
        raise RecipeError(
            "overrides, student and teacher override a recipe file. Change the dict, or the recipe with "
            "recipe.model_copy(update={…})."
        )
    if isinstance(recipe, Recipe):
        return recipe
    return recipe_of_dict(recipe)


def open_run(name: str | Path, run_dir: str | Path = "runs") -> RunResult:
    """Open an existing run, finished or not.

    Args:
        name: name of the run in `run_dir`, or its folder.
        run_dir: folder of runs.

    Raises:
        UserError: there is no such run, or no stage of it is complete.
    """
    folder = find_run(Path(run_dir), str(name))
    summary = read_object(folder / SUMMARY)
    if summary is None:
        raise UserError(f"{folder}: no stage of this run is complete yet. Continue with distill.run(recipe).")
    return RunResult(summary, folder)


def make_problem(question: str, answer: str | None, task: str = "math", source: str = "python") -> Problem:
    """Return a problem made from a question and its expected answer; its id is a hash of the content.

    Args:
        question: as the student will see it.
        answer: the expected final answer; `None` if unknown.
        task: how answers are graded: `math`, `exact`, `numeric`, `regex`, …
        source: where it comes from, in a word.

    Raises:
        UserError: there is no such task.
    """
    if task not in get_args(Task):
        raise UserError(f"make_problem: task is {task!r}, and should be one of {', '.join(get_args(Task))}.")
    prompt = [{"role": "user", "content": question}]
    return Problem(problem_id(prompt, task, answer), prompt, answer, task, source)


def make_trace(
    problem: Problem,
    text: str,
    sample_index: int = 0,
    *,
    finish_reason: FinishReason = "stop",
    teacher: str = "unknown",
    num_completion_tokens: int = 0,
) -> Trace:
    """Return a trace made from a model's raw text, split into reasoning and answer at `</think>`.

    Args:
        problem: the problem that it answers.
        text: the raw text, including the reasoning.
        sample_index: its number among the problem's traces.
        finish_reason: `stop`, `length`, `loop` or `error`.
        teacher: name of the model that wrote it.
        num_completion_tokens: in tokens of the teacher; 0 if unknown.

    Raises:
        UserError: a number is negative.
    """
    if sample_index < 0 or num_completion_tokens < 0:
        raise UserError(
            f"make_trace: sample_index is {sample_index} and num_completion_tokens {num_completion_tokens}; neither "
            "may be below 0."
        )
    split = split_reasoning(text)
    return Trace(
        problem_id=problem.id,
        sample_index=sample_index,
        teacher=teacher,
        teacher_revision="",
        text=text,
        reasoning=split.reasoning,
        content=split.content,
        finish_reason=finish_reason,
        num_prompt_tokens=0,
        num_completion_tokens=num_completion_tokens,
        seed=0,
    )


def score(traces: Sequence[Trace], verdicts: Sequence[Verdict], model: str = "") -> EvalResult:
    """Return pass@1 with its 95% interval, computed like `distill eval` (docs/scores.md).

    Args:
        traces: answers, at least one to each problem.
        verdicts: one per trace; ungraded traces are left out, and counted.
        model: name of the model that wrote them.

    Raises:
        UserError: there are no traces, or not exactly one verdict per trace.
    """
    keys = {trace.key for trace in traces}
    if not traces or len(keys) != len(traces) or keys != {verdict.key for verdict in verdicts}:
        raise UserError("score: needs at least one trace, and exactly one verdict for each.")
    by_key = {verdict.key: verdict for verdict in verdicts}
    wanted = Counter(trace.problem_id for trace in traces)
    return score_answers(Answers(model, list(traces), [by_key[trace.key] for trace in traces]), wanted)


def _to_standard_error(text: str) -> None:
    sys.stderr.write(f"{printable(text)}\n")


@contextlib.contextmanager
def _quiet(is_quiet: bool) -> Iterator[None]:
    """Turn off progress inside the block, here and in child processes."""
    before = os.environ.get(QUIET)
    if is_quiet:
        os.environ[QUIET] = "1"
    try:
        yield
    finally:
        if is_quiet:
            os.environ.pop(QUIET)
        if before is not None:
            os.environ[QUIET] = before


def plan(
    recipe: RecipeGiven = "recipe.yaml",
    *,
    run_dir: str | Path = "runs",
    gpus: int | None = None,
    gpu: str | None = None,
    gpu_memory_gib: float | None = None,
    gpu_price: float | None = None,
    prices: str | Path | None = None,
) -> Plan | RoundsPlan:
    """Estimate what a run will take, before anything runs; docs/json.md describes `to_json()`.

    Args:
        recipe: a file, a dict or a recipe; one from outside need not be accepted, since it is not run.
        run_dir: folder that contains, or will contain, `<recipe name>/`.
        gpus: GPUs to plan for (with `gpu="cpu"`: cores). Default: this machine's.
        gpu: kind of GPU (`h100`, `4090`, …), or `cpu`.
        gpu_memory_gib: memory of one GPU.
        gpu_price: price of one GPU for an hour.
        prices: YAML file with your own prices (docs/planning.md).

    Raises:
        UserError: the request is invalid; the message says what to do.
    """
    for name, number, least in (("gpus", gpus, 1), ("gpu_memory_gib", gpu_memory_gib, 1)):
        if number is not None and not number >= least:
            raise UserError(f"plan: {name} is {number}, and should be {least} or more.")
    machine = chosen_machine(gpus, gpu, gpu_memory_gib)
    known = load_prices(None if prices is None else Path(prices), gpu_price)
    return plan_any(_looked_at(recipe), Path(run_dir), machine, known)


def doctor(recipe: RecipeGiven | None = None, *, run_dir: str | Path = "runs") -> Diagnosis:
    """Check what is missing on this machine, for itself and for a recipe, with the command that fixes each finding.

    Args:
        recipe: a file, a dict or a recipe. Default: check only the machine.
        run_dir: folder for runs.

    Raises:
        RecipeError: the dict is not a valid recipe. (An invalid file is part of the diagnosis.)
    """
    if recipe is None:
        return diagnose(None, Path(run_dir))
    if isinstance(recipe, str | Path):
        return diagnose(lambda: as_recipe(recipe), Path(run_dir), str(recipe))
    made = as_recipe(recipe)
    return diagnose(lambda: made, Path(run_dir), made.name)


RunGiven = RunResult | str | Path


def write_report(run: RunGiven, *, run_dir: str | Path = "runs", output: str | Path | None = None) -> Path:
    """Write the report of a run, finished or not, and return its path.

    Args:
        run: its name in `run_dir`, its folder, or the result of `distill.run`.
        run_dir: folder of runs.
        output: file to write. Default: `report.html` in the run's folder.

    Raises:
        UserError: there is no such run.
    """
    found = _gathered(run, run_dir)
    path = Path(output) if output is not None else found.folder / REPORT
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, render_any(found))
    return path


def compare(first: RunGiven, second: RunGiven, *, run_dir: str | Path = "runs") -> dict[str, Any]:
    """Return how two runs differ (funnel, scores with intervals, recipes), as in `distill report --json`.

    Args:
        first: a run, as for `write_report`.
        second: the other run.
        run_dir: folder of runs.

    Raises:
        UserError: there is no such run.
    """
    runs = _gathered(first, run_dir), _gathered(second, run_dir)
    if any("rounds" in run.facts for run in runs):
        raise UserError("compare: a run with rounds was given. Name one of its rounds, such as quickstart/cold-start.")
    return compare_runs(*runs)


def diff(before: RecipeGiven, after: RecipeGiven, *, run_dir: str | Path = "runs") -> list[Difference]:
    """Return how two recipes differ in meaning, changes to the result first.

    Args:
        before: a recipe, as for `plan`, or a run's name or folder.
        after: the same.
        run_dir: folder of runs.

    Raises:
        RecipeError: it is neither a recipe nor a run.
    """
    return recipe_differences(_recipe_or_ran(before, run_dir), _recipe_or_ran(after, run_dir))


def _looked_at(recipe: RecipeGiven) -> Recipe:
    return read_recipe(recipe).recipe if isinstance(recipe, str | Path) else as_recipe(recipe)


def _recipe_or_ran(given: RecipeGiven, run_dir: str | Path) -> Recipe:
    return recipe_of(str(given), Path(run_dir))[1] if isinstance(given, str | Path) else as_recipe(given)


def _gathered(run: RunGiven, run_dir: str | Path) -> Run:
    return gather_any(run.folder if isinstance(run, RunResult) else find_run(Path(run_dir), str(run)))
