"""Running recipes from Python, and reading what they left.

Enters: a recipe, as a path, a dict or a `Recipe`. Leaves: a `RunResult`: scores, traces, verdicts, rows, places.

    result = run("recipe.yaml", run_dir="runs", student="qwen-1.5b")
    print(result.student_score.pass_at_1, result.folder / "report.html")
"""

import contextlib
import html
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from distill.core.progress import QUIET
from distill.core.records import EvalResult, FinishReason, Problem, Trace, Verdict, problem_id
from distill.core.terminal import printable
from distill.core.thinking import split_reasoning
from distill.errors import RecipeError, UserError
from distill.estimates.machine import chosen_machine
from distill.estimates.prices import load_prices
from distill.models.hub import Model
from distill.recipe.diff import Difference, recipe_differences, recipe_of
from distill.recipe.loading import load_recipe, read_recipe, recipe_of_dict
from distill.recipe.model import Recipe
from distill.recipe.problems import Task
from distill.report import Run, gather_run, render_report
from distill.report.compare import compare_runs
from distill.runs.doctor import Diagnosis, diagnose
from distill.runs.listing import find_run
from distill.runs.plan import Plan, plan_recipe
from distill.runs.runner import headline, run_recipe
from distill.runs.steps import STAGES, stages_of
from distill.stages.eval import Graded
from distill.stages.eval import score as score_graded
from distill.storage.files import atomic_write, read_jsonl, read_object
from distill.storage.layout import KEPT, PROBLEMS, REPORT, STUDENT, SUMMARY, VERDICTS
from distill.storage.shards import readable
from distill.storage.trace_store import stored_traces

RecipeGiven = Recipe | Mapping[str, Any] | str | Path


@dataclass(frozen=True, slots=True)
class RunResult:
    """A run, finished or on its way: its summary, and ways to its records."""

    summary: dict[str, Any]
    """As in `summary.json` (docs/json.md); a stage that is not complete has no key."""
    folder: Path
    """`runs/<name>`."""

    @property
    def name(self) -> str:
        """Of the run, and of its folder."""
        return str(self.summary["name"])

    @property
    def report(self) -> Path:
        """The report, a page for a browser."""
        return self.folder / REPORT

    @property
    def student(self) -> Path | None:
        """The trained student, which transformers and vLLM load; `None` before training."""
        return self.folder / "sft" / STUDENT if "sft" in self.summary else None

    @property
    def base_score(self) -> EvalResult | None:
        """What the student scored before training; `None` where nothing was measured."""
        return self._score("base")

    @property
    def student_score(self) -> EvalResult | None:
        """What the student scores; `None` where nothing was measured."""
        return self._score("student")

    @property
    def gain(self) -> dict[str, Any] | None:
        """The paired difference: `pass_at_1`, `interval_95` (shares), `num_gained`, `num_lost` (problems)."""
        return self.summary["eval"]["difference"] if "eval" in self.summary else None

    def problems(self) -> list[Problem]:
        """The problems that the traces answer."""
        return [Problem.from_json(row) for row in read_jsonl(self._traces_folder / PROBLEMS)]

    def traces(self) -> Iterator[Trace]:
        """All traces, in the order of their identities."""
        return stored_traces(self._traces_folder)

    def verdicts(self) -> Iterator[Verdict]:
        """What the filter made of each trace, in the same order."""
        return (Verdict.from_json(row) for row in read_jsonl(self.folder / "filter" / VERDICTS))

    def rows(self) -> Iterator[dict[str, Any]]:
        """The training rows: TRL's `prompt` and `completion`, and the trace's own columns."""
        import pyarrow.parquet as pq

        for shard in sorted((self.folder / "filter" / KEPT).glob("*.parquet")):
            with readable(shard):
                for batch in pq.ParquetFile(shard).iter_batches():
                    yield from batch.to_pylist()

    @property
    def _traces_folder(self) -> Path:
        return self.folder / ("import" if self.summary["recipe"]["traces"] else "generate")

    def _score(self, role: str) -> EvalResult | None:
        return EvalResult.from_json(self.summary["eval"][role]) if "eval" in self.summary else None

    def _lines(self) -> list[tuple[str, str]]:
        done = [(name, headline(name, self.summary[name])) for name in STAGES if name in self.summary]
        return [*done, ("report", str(self.report))]

    def __repr__(self) -> str:
        return "\n".join([f"run {self.name}", *(f"  {name:<9} {text}" for name, text in self._lines())])

    def _repr_html_(self) -> str:
        """For notebooks."""
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
) -> RunResult:
    """Run a recipe's stages, skipping those that are done; what `distill run` does.

    Works in a notebook and outside the main thread. Interrupted (Ctrl-C, the stop button), it keeps what is finished,
    and the same call goes on from there. Engines and training run in processes of their own.

    Args:
        recipe: a file, the name of an installed recipe, a reference to one outside (`hf:…`, `git+…`) that was accepted
            on the command line, a dict with the same keys as a file, or a recipe.
        stages: names of stages (`generate`, `import`, `filter`, `sft`, `eval`, `push`); left out: all that it has.
        run_dir: folder in which `<recipe name>/` is made.
        overrides: `key.path=value`, as `--set`; for a file alone, and so are `student` and `teacher`.
        student: alias, Hub id or folder.
        teacher: Hub id, folder or alias.
        force: move results of a changed recipe aside instead of stopping.
        retry_errors: ask again for the samples that ended in errors.
        say: is told each step in a line; left out: standard error.
        quiet: no progress and no notes.

    Raises:
        UserError: a mistake in what was asked for; the message says what to do.
        DistillError: a stage failed; what is finished stays.
    """
    made = as_recipe(recipe, overrides, student, teacher)
    if stages is not None and not stages:
        raise UserError("run: stages names none. Leave it out for all that the recipe has.")
    if unknown := sorted(set(stages or ()) - STAGES.keys()):
        raise UserError(f"stages: unknown {', '.join(unknown)}. There are: {', '.join(STAGES)}.")
    there = stages_of(made)
    if lacking := [name for name in STAGES if name in (stages or ()) and name not in {*there, "push"}]:
        section = "traces" if lacking[0] == "import" else lacking[0]
        raise UserError(
            f"stages: {', '.join(lacking)}: recipe {made.name} has no {section}: section. Its stages are: "
            f"{', '.join(there)}."
        )
    tell = (lambda text: None) if quiet else say or _to_standard_error
    with _quiet(quiet):
        summary = run_recipe(made, Path(run_dir), stages, force, tell, retry_errors)
    return RunResult(summary, Path(run_dir) / made.name)


def as_recipe(
    recipe: Recipe | Mapping[str, Any] | str | Path,
    overrides: Sequence[str] = (),
    student: str | None = None,
    teacher: str | None = None,
) -> Recipe:
    """A recipe from what names it (a file, an installed one, one from outside), a dict, or itself.

    Raises:
        RecipeError: what is wrong with it, and the likely right key; or overrides for what is no file.
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
    """Read a run that is there already, finished or not.

    Args:
        name: of the run in `run_dir`, or its folder.
        run_dir: folder of runs.

    Raises:
        UserError: there is no such run, or no stage of it is complete.
    """
    folder = find_run(Path(run_dir), str(name))
    summary = read_object(folder / SUMMARY)
    if summary is None:
        raise UserError(f"{folder}: no stage of this run is complete yet. Go on with distill.run(recipe).")
    return RunResult(summary, folder)


def make_problem(question: str, answer: str | None, task: str = "math", source: str = "python") -> Problem:
    """A problem from a question and its expected answer; its id is a hash of the content.

    Args:
        question: as the student will see it.
        answer: the expected final answer; `None` where nobody knows it.
        task: how answers are graded: `math`, `exact`, `numeric`, `regex`, …
        source: where it comes from, in a word.

    Raises:
        UserError: nothing is graded so.
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
    """A trace from a model's raw text, taken apart at `</think>`.

    Args:
        problem: that it answers.
        text: verbatim, thinking included.
        sample_index: its number among the problem's traces.
        finish_reason: `stop`, `length`, `loop` or `error`.
        teacher: who wrote it.
        num_completion_tokens: as the teacher counts them; 0 where nobody knows.

    Raises:
        UserError: a number below 0.
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


def score(traces: Sequence[Trace], verdicts: Sequence[Verdict], model: str = "", seed: int = 0) -> EvalResult:
    """pass@1 with its 95% interval, as `distill eval` works it out (docs/scores.md).

    Args:
        traces: answers, equally many for each problem.
        verdicts: one a trace; `correct` counts, and what could not be graded counts as not right.
        model: whose they are.
        seed: of the bootstrap.

    Raises:
        UserError: there are none, or not one verdict a trace.
    """
    keys = {trace.key for trace in traces}
    if not traces or len(keys) != len(traces) or keys != {verdict.key for verdict in verdicts}:
        raise UserError("score: needs at least one trace, and exactly one verdict for each.")
    graded = Graded(Model(model, Path(), ""), list(traces), list(verdicts))
    return score_graded(graded, {trace.problem_id for trace in traces}, seed)


def _to_standard_error(text: str) -> None:
    sys.stderr.write(f"{printable(text)}\n")


@contextlib.contextmanager
def _quiet(is_quiet: bool) -> Iterator[None]:
    """For as long as the block lasts, no progress here and in child processes."""
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
) -> Plan:
    """What a run will take, before anything runs; `to_json()` is as in docs/json.md.

    Args:
        recipe: a file, a dict or a recipe; one from outside need not have been accepted, as nothing of it is run.
        run_dir: folder in which `<recipe name>/` is, or will be.
        gpus: GPUs to plan for (with `gpu="cpu"`: cores); left out: this machine's.
        gpu: kind of GPU (`h100`, `4090`, …), or `cpu`.
        gpu_memory_gib: memory of one GPU.
        gpu_price: money for an hour of one GPU.
        prices: YAML with prices of your own (docs/planning.md).

    Raises:
        UserError: a mistake in what was asked for; the message says what to do.
    """
    for name, number, least in (("gpus", gpus, 1), ("gpu_memory_gib", gpu_memory_gib, 1)):
        if number is not None and not number >= least:
            raise UserError(f"plan: {name} is {number}, and should be {least} or more.")
    machine = chosen_machine(gpus, gpu, gpu_memory_gib)
    known = load_prices(None if prices is None else Path(prices), gpu_price)
    return plan_recipe(_looked_at(recipe), Path(run_dir), machine, known)


def doctor(recipe: RecipeGiven | None = None, *, run_dir: str | Path = "runs") -> Diagnosis:
    """What this machine lacks, and what a recipe lacks on it, with the command that fixes each.

    Args:
        recipe: a file, a dict or a recipe; left out: the machine alone.
        run_dir: folder for runs.

    Raises:
        RecipeError: the dict is no recipe. (Of a file that is none, the diagnosis tells.)
    """
    if recipe is None:
        return diagnose(None, Path(run_dir))
    if isinstance(recipe, str | Path):
        return diagnose(lambda: as_recipe(recipe), Path(run_dir), str(recipe))
    made = as_recipe(recipe)
    return diagnose(lambda: made, Path(run_dir), made.name)


RunGiven = RunResult | str | Path


def write_report(run: RunGiven, *, run_dir: str | Path = "runs", output: str | Path | None = None) -> Path:
    """Write the page about a run, finished or not, and tell where it is.

    Args:
        run: its name in `run_dir`, its folder, or the result of `distill.run`.
        run_dir: folder of runs.
        output: where the page goes; left out: `report.html` in the run's folder.

    Raises:
        UserError: there is no such run.
    """
    found = _gathered(run, run_dir)
    path = Path(output) if output is not None else found.folder / REPORT
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, render_report(found))
    return path


def compare(first: RunGiven, second: RunGiven, *, run_dir: str | Path = "runs") -> dict[str, Any]:
    """What sets two runs apart: funnel, scores with intervals, recipes; `comparison` of `distill report --json`.

    Args:
        first: as `write_report` takes a run, and so is `second`.
        second: the other.
        run_dir: folder of runs.

    Raises:
        UserError: there is no such run.
    """
    return compare_runs(_gathered(first, run_dir), _gathered(second, run_dir))


def diff(before: RecipeGiven, after: RecipeGiven, *, run_dir: str | Path = "runs") -> list[Difference]:
    """How two recipes differ in meaning, what changes the result first.

    Args:
        before: a recipe as `plan` takes it, or a run by its name or folder.
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
    return gather_run(run.folder if isinstance(run, RunResult) else find_run(Path(run_dir), str(run)))
