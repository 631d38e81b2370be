"""Runs whose files are those of the real writers: ledger, shards, filter and manifests; only models are missing."""

import json
import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from distill.core.provenance import hardware, package_versions
from distill.core.records import Problem, Trace, Verdict
from distill.core.thinking import split_reasoning
from distill.filters.funnel import Funnel
from distill.models.hub import Model
from distill.recipe.model import Recipe
from distill.report import gather_run, render_report
from distill.report.compare import compare_runs, render_comparison
from distill.results.eval import Protocol
from distill.runs.results import write_summary
from distill.stages import RunContext, filter
from distill.stages.eval import Graded, compare
from distill.storage.files import write_jsonl
from distill.storage.fingerprints import fingerprint
from distill.storage.ledger import Ledger
from distill.storage.run_folder import Manifest, Summary, describe_outputs, only_writer
from distill.storage.trace_store import finalise

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
DESK = {"width": 1280, "height": 900}

PROTOCOL = {"temperature": 0.6, "top_p": 0.95, "top_k": 0, "max_tokens": 192, "engine": "vllm 0.31.0"}


def recipe_of(name: str, **sections: Any) -> Recipe:
    base: dict[str, Any] = {
        "name": name,
        "student": "smollm2-135m",
        "seed": 7,
        "problems": [{"source": "file:sums.jsonl"}],
        "generate": {
            "teacher": "org/teacher",
            "samples_per_problem": 4,
            "sampling": {"temperature": 0.7, "top_p": 1.0, "max_tokens": 512},
        },
        "filter": {"compute": {"workers": 1}, "duplicates": None},
        "sft": {"max_length": 1024, "epochs": 2, "batch_size": 8},
        "eval": {"held_out": 20, "samples_per_problem": 1, "sampling": {"max_tokens": 192}},
    }
    return Recipe.model_validate(base | sections)


def trace_of(problem: Problem, sample_index: int, text: str, finish_reason: str = "stop", tokens: int = 0) -> Trace:
    split = split_reasoning(text)
    return Trace(
        problem_id=problem.id,
        sample_index=sample_index,
        teacher="org/teacher",
        teacher_revision="f48baf8b",
        text=text,
        reasoning=split.reasoning,
        content=split.content,
        finish_reason=finish_reason,
        num_prompt_tokens=20,
        num_completion_tokens=tokens or max(1, len(text) // 4),
        seed=1,
        sampling={"temperature": 0.7, "top_p": 1.0, "top_k": 0, "max_tokens": 512},
    )


def sum_problem(a: int, b: int, source: str = "file:sums.jsonl", question: str = "What is {a} + {b}?") -> Problem:
    prompt = [{"role": "user", "content": question.format(a=a, b=b)}]
    return Problem(f"p{a:03d}x{b:03d}", prompt, str(a + b), "math", source)


class RunMaker:
    """Makes the stages of one run, one after another."""

    def __init__(self, recipe: Recipe, runs: Path) -> None:
        self.recipe = recipe
        self.run = RunContext(recipe, runs / recipe.name)
        self.folder = self.run.run_dir
        with only_writer(self.folder):  # as every run begins
            pass

    def complete(self, stage: str, summary: Summary, identity: dict[str, Any], seconds: float) -> None:
        folder = self.run.folder(stage)
        folder.path.mkdir(parents=True, exist_ok=True)
        folder.claim(identity)
        folder.complete(
            Manifest(
                stage=stage,
                fingerprint=fingerprint(identity),
                identity=identity,
                config={},
                outputs=describe_outputs(folder.path, summary.outputs),
                metrics=summary.metrics,
                versions=package_versions(),
                hardware=hardware(),
                git_commit="0123456789abcdef",
                seconds=seconds,
                peak_memory_gib=2.5,
                finished_at="2026-03-04T05:06:07+00:00",
            )
        )

    def generate(self, problems: Sequence[Problem], traces: Sequence[Trace], is_complete: bool = True) -> None:
        folder = self.folder / "generate"
        folder.mkdir(parents=True)
        write_jsonl(folder / "problems.jsonl", (problem.to_json() for problem in problems))
        identity = {"teacher": "org/teacher", "teacher_revision": "f48baf8b", "samples_per_problem": 4}
        with Ledger(folder / "ledger.jsonl") as ledger:
            ledger.append(traces)
        if not is_complete:
            self.run.folder("generate").claim(identity)
            return
        outputs, tally = finalise(folder, lambda key: True)
        by_source: dict[str, int] = {}
        for problem in problems:
            by_source[problem.source] = by_source.get(problem.source, 0) + 1
        metrics = {
            "teacher": "org/teacher",
            "teacher_revision": "f48baf8b",
            "num_problems": len(problems),
            "num_problems_by_source": by_source,
            "num_samples": tally.num_samples,
            "samples_per_problem": 4,
            "num_examples": 2,
            "sampling": {"temperature": 0.7, "top_p": 1.0, "max_tokens": 512},
            "num_prompt_tokens": tally.num_prompt_tokens,
            "num_completion_tokens": tally.num_completion_tokens,
            "finish_reasons": tally.by_reason,
            "engine": {"name": "vllm", "version": "0.31.0"},
            "tokens_per_second": 520.0,
            "cost": {"amount": 1.25, "currency": "USD"},
        }
        self.complete("generate", Summary(metrics, {"problems.jsonl": len(problems), **outputs}), identity, 120.0)

    def filter(self) -> None:
        folder = self.run.folder("filter")
        folder.path.mkdir(parents=True)
        identity = filter.identity(self.run)
        folder.claim(identity)
        self.complete("filter", filter.run(self.run), identity, 12.0)

    def sft(self, num_steps: int = 60) -> None:
        steps = random.Random(3)
        history = [
            {
                "step": step,
                "loss": round(1.8 / (1 + step / 12) + steps.random() * 0.1, 4),
                "learning_rate": 1e-4 * min(1, step / 6) * (1 - step / (num_steps + 1)),
                "tokens_per_second": 400 + steps.random() * 40,
            }
            for step in range(1, num_steps + 1)
        ]
        metrics = {
            "student": "org/student",
            "student_revision": "aa11bb22",
            "method": "full",
            "num_rows": 40,
            "epochs": 2,
            "batch_size": 4,
            "learning_rate": 1e-4,
            "num_tokens": 21_000,
            "num_trained_tokens": 12_000,
            "num_steps": num_steps,
            "final_loss": history[-1]["loss"],
            "tokens_per_second": 415.0,
            "history": history,
        }
        self.complete("sft", Summary(metrics, {}), {"student": "org/student", "student_revision": "aa11bb22"}, 200.0)

    def eval(
        self,
        problems: Sequence[Problem],
        base: Sequence[Trace],
        student: Sequence[Trace],
        right: Callable[[Trace], bool],
    ) -> None:
        folder = self.folder / "eval"
        folder.mkdir(parents=True)
        write_jsonl(folder / "problems.jsonl", (problem.to_json() for problem in problems))
        graded = {}
        for role, traces in (("base", base), ("student", student)):
            with Ledger(folder / role / "ledger.jsonl") as ledger:
                ledger.append(traces)
            traces = sorted(traces, key=lambda trace: trace.key)
            verdicts = [
                Verdict(t.problem_id, t.sample_index, right(t), t.content[-9:].strip("\\boxed{}."), ()) for t in traces
            ]
            write_jsonl(folder / role / "verdicts.jsonl", (verdict.to_json() for verdict in verdicts))
            graded[role] = Graded(Model(f"org/{role}", Path(), "r"), list(traces), verdicts)
        protocol = Protocol(
            samples_per_problem=1,
            **PROTOCOL,
            extraction="last boxed",
            interval="95%, percentile bootstrap over problems, 10,000 resamples",
        )
        metrics = compare(graded["base"], graded["student"], {"held-out": list(problems)}, 7, protocol, {})
        self.complete("eval", Summary(metrics.to_json(), {}), {"version": 2, "seed": 7, "base": "org/student"}, 40.0)

    def summarise(self) -> dict[str, Any]:
        """What the runner writes after each stage."""
        summary = write_summary(self.run)
        (self.folder / "report.html").write_text(render_report(gather_run(self.folder)))
        return summary


THOUGHTS = (
    "I add the ones first: {a} and {b}. Then I carry where it is needed and write the sum down, {c} in all.",
    "Let me see. {a} and {b} more. Counting up from {a} by tens and then by ones, I reach {c}.",
)
LOOP = "Wait, is it {c}? Let me look at that once more. "
FOREIGN = "I add {a} 和 {b} 得到 {c}, 所以 that is it."


def sums_run(runs: Path, name: str = "sums", num: int = 24, skill: int = 3, **sections: Any) -> RunMaker:
    """A run of small sums with traces of many fates; the student's answers are right on all but each `skill`-th."""
    maker = RunMaker(recipe_of(name, **sections), runs)
    problems = [sum_problem(3 + i, 4 + 2 * i, f"file:{'odd' if i % 2 else 'even'}.jsonl") for i in range(num)]
    traces = []
    for i, problem in enumerate(problems):
        a, b = 3 + i, 4 + 2 * i
        c = a + b
        say = f"The answer is \\boxed{{{c}}}."
        thoughts = [
            f"<think>\n{THOUGHTS[i % 2].format(a=a, b=b, c=c)}\n</think>\n\n{say}",
            f"<think>\n{THOUGHTS[1].format(a=a, b=b, c=c + 1)}\n</think>\n\nThe answer is \\boxed{{{c + 1}}}.",
            f"<think>\n{FOREIGN.format(a=a, b=b, c=c)}\n</think>\n\n{say}",
            f"<think>\nHm, {a} and {b}. " + LOOP.format(c=c) * 40,
        ]
        ends = ("stop", "stop", "stop", "length")
        traces += [trace_of(problem, k, text, end) for k, (text, end) in enumerate(zip(thoughts, ends, strict=True))]
    maker.generate(problems, traces)
    maker.filter()
    maker.sft()
    held_out = [sum_problem(100 + i, 5) for i in range(20)]
    base = [trace_of(p, 0, f"It is \\boxed{{{105 + i if i % 5 == 0 else 99}}}.") for i, p in enumerate(held_out)]
    student = [
        trace_of(p, 0, f"<think>\n{100 + i} and 5.\n</think>\n\nIt is \\boxed{{{7 if i % skill == 0 else 105 + i}}}.")
        for i, p in enumerate(held_out)
    ]
    gold = {problem.id: problem.answer for problem in held_out}
    maker.eval(held_out, base, student, lambda trace: f"{{{gold[trace.problem_id]}}}" in trace.content)
    maker.summarise()
    return maker


@pytest.fixture
def kit() -> SimpleNamespace:
    """What runs are made from by hand."""
    return SimpleNamespace(
        RunMaker=RunMaker, recipe_of=recipe_of, trace_of=trace_of, sum_problem=sum_problem, big_run=big_run
    )


@pytest.fixture(scope="session")
def finished_runs(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A function that makes a finished run once and hands out its folder, for others to copy."""
    made: dict[str, Path] = {}

    def make(name: str, given: dict[str, Any]) -> Path:
        key = json.dumps([name, given], sort_keys=True)
        if key not in made:
            made[key] = sums_run(tmp_path_factory.mktemp("finished"), name, **given).folder
        return made[key]

    return make


@pytest.fixture
def make_sums_run(tmp_path: Path, finished_runs: Callable[..., Path]) -> Callable[..., RunMaker]:
    """A function that makes a finished run under `tmp_path/runs`."""

    def make(name: str = "sums", **given: Any) -> RunMaker:
        shutil.copytree(finished_runs(name, given), tmp_path / "runs" / name)
        sections = {key: value for key, value in given.items() if key not in ("num", "skill")}
        return RunMaker(recipe_of(name, **sections), tmp_path / "runs")

    return make


def big_run(runs: Path, num_problems: int = 25_000, num_samples: int = 4, num_chars: int = 4_000) -> Path:
    """A filtered run of `num_problems * num_samples` traces, written without grading them."""
    from distill.core.records import REASONS
    from distill.filters.rows import DROPPED_COLUMNS, KEPT_COLUMNS, dropped_row, kept_row, schema_of
    from distill.storage.shards import ShardWriter

    draw = random.Random(5)
    maker = RunMaker(recipe_of("big"), runs)
    folder = maker.folder / "filter"
    folder.mkdir(parents=True)
    kept, dropped = (
        ShardWriter(folder / "kept", schema_of(KEPT_COLUMNS)),
        ShardWriter(folder / "dropped", schema_of(DROPPED_COLUMNS)),
    )
    words = " ".join(draw.choice(("so", "add", "carry", "seven", "then", "we", "see")) for _ in range(num_chars))
    funnel = Funnel()
    # Some reasons are rare, one occurs once.
    weights = {"": 40_000, "wrong_answer": 40_000, "truncated": 15_000, "loop": 3_000, "mixed_language": 1_000}
    names, shares = list(weights), list(weights.values())
    with (folder / "verdicts.jsonl").open("w") as stream:
        for number in range(num_problems):
            problem = sum_problem(number % 1_000, number // 1_000, f"hf:org/part-{number % 5}")
            problem = replace(problem, id=f"q{number:06d}")
            verdicts = []
            for sample in range(num_samples):
                reason = "judge_veto" if (number, sample) == (77, 1) else draw.choices(names, shares)[0]
                correct = None if reason in ("truncated", "loop") else reason != "wrong_answer"
                verdict = Verdict(problem.id, sample, correct, "7", (reason,) if reason else (), "rule", {})
                start = draw.randrange(num_chars)
                text = f"<think>\n{words[start : start + draw.randrange(num_chars)]}\n</think>\n\nIt is \\boxed{{7}}."
                trace = trace_of(problem, sample, text)
                if verdict.kept:
                    kept.write(kept_row(problem, trace, verdict), len(text))
                else:
                    assert reason in REASONS
                    dropped.write(dropped_row(problem, trace, verdict), len(text))
                stream.write(json.dumps(verdict.to_json()) + "\n")
                verdicts.append(verdict)
            funnel.add(problem.source, verdicts, [100] * num_samples)
    kept.close()
    dropped.close()
    (maker.folder / "generate").mkdir()
    (maker.folder / "generate" / "problems.jsonl").write_text("")
    generated = {"teacher": "org/teacher", "num_samples": num_problems * num_samples, "num_problems": num_problems}
    generated |= {"num_completion_tokens": 1_000, "num_problems_by_source": {}, "finish_reasons": {}}
    generated |= {"teacher_revision": "r", "samples_per_problem": num_samples, "num_prompt_tokens": 1_000}
    maker.complete("generate", Summary(generated, {}), {"teacher": "org/teacher"}, 3_600.0)
    maker.complete("filter", Summary(funnel.metrics().to_json(), {}), {"version": 2}, 600.0)
    return maker.folder


@pytest.fixture(scope="session")
def chromium():
    if CHROMIUM is None:
        pytest.skip("needs Chromium (apt-get install chromium)")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def pages(finished_runs, tmp_path_factory):
    """Addresses of the page of one run and of the page of two."""
    folder = tmp_path_factory.mktemp("pages")
    one, other = gather_run(finished_runs("a", {})), gather_run(finished_runs("b", {"skill": 4}))
    (folder / "one.html").write_text(render_report(one))
    (folder / "two.html").write_text(render_comparison(one, other, compare_runs(one, other)))
    return {name: (folder / f"{name}.html").as_uri() for name in ("one", "two")}


@pytest.fixture
def open_page(chromium):
    """A function that opens a page. Whatever the page says on the console or asks of the network fails the test."""
    contexts, said = [], []

    def open_at(address, viewport=DESK, colour="light", **context_options):
        context = chromium.new_context(viewport=viewport, color_scheme=colour, **context_options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: said.append(request.url) if not request.url.startswith("file:") else None)
        page.goto(address)
        return page

    yield open_at
    for context in contexts:
        context.close()
    assert said == []
