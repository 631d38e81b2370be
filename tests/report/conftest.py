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
from distill.evaluation.answers import Answers
from distill.evaluation.measured_sets import EXTRACTION, INTERVAL, MeasuredSet, problems_hash, write_sets
from distill.evaluation.scoring import score_set
from distill.filters.funnel import Funnel
from distill.recipe.model import Recipe
from distill.report import gather_run, render_report
from distill.report.compare import compare_runs, render_comparison
from distill.report.pairs import SideBySide
from distill.results.eval import Protocol
from distill.results.measure import MeasureMetrics, ModelsOnBenchmark
from distill.runs.results import write_summary
from distill.stages import RunContext, filter
from distill.stages.eval import compare
from distill.storage.files import read_json, write_json, write_jsonl
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

SAMPLING = {"temperature": 0.6, "top_p": 0.95, "top_k": 0, "max_tokens": 192}
ENGINE = {"name": "vllm", "version": "0.31.0"}


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
        problems: Sequence[Problem] | dict[str, Sequence[Problem]],
        base: Sequence[Trace],
        student: Sequence[Trace],
        right: Callable[[Trace], bool | None],
        hit: Sequence[str] = (),
        **fields: Any,
    ) -> None:
        """Evaluate both models; `fields` are those of the benchmarks (`canary`, `samples_per_problem`, …)."""
        sets, by_id = self.ask("eval", problems, **fields)
        graded = {
            role: self.answers("eval", role, traces, right) for role, traces in (("base", base), ("student", student))
        }
        engines = {"base": ENGINE, "student": ENGINE}
        found = dict.fromkeys(hit, "exact: the same question")
        metrics = compare(graded["base"], graded["student"], sets, by_id, 7, engines, found)
        outputs = {"problems.jsonl": len(by_id), "benchmarks.jsonl": len(sets)}
        self.complete(
            "eval", Summary(metrics.to_json(), outputs), {"version": 4, "seed": 7, "base": "org/student"}, 40.0
        )

    def measure(
        self,
        problems: Sequence[Problem] | dict[str, Sequence[Problem]],
        models: dict[str, Sequence[Trace]],
        right: Callable[[Trace], bool | None],
        **fields: Any,
    ) -> None:
        """Evaluate any models."""
        sets, by_id = self.ask("measure", problems, **fields)
        graded = {role: self.answers("measure", role, traces, right) for role, traces in models.items()}
        found = [
            ModelsOnBenchmark(
                name=one.name,
                protocol=one.protocol,
                models={role: score_set(one, own.of(one.problems), by_id, 7) for role, own in graded.items()},
            )
            for one in sets
        ]
        metrics = MeasureMetrics(benchmarks=found, engine=dict.fromkeys(models, ENGINE))
        identity = {"version": 1, "models": {role: f"org/{role}@r" for role in models}}
        outputs = {"problems.jsonl": len(by_id), "benchmarks.jsonl": len(sets)}
        self.complete("measure", Summary(metrics.to_json(), outputs), identity, 30.0)

    def ask(
        self, stage: str, problems: Sequence[Problem] | dict[str, Sequence[Problem]], **fields: Any
    ) -> tuple[list[MeasuredSet], dict[str, Problem]]:
        """Write what is asked."""
        folder = self.folder / stage
        folder.mkdir(parents=True)
        given = problems if isinstance(problems, dict) else {"held-out": problems}
        by_id = {problem.id: problem for some in given.values() for problem in some}
        write_jsonl(folder / "problems.jsonl", (problem.to_json() for problem in by_id.values()))
        sets = [measured_set(name, some, **fields) for name, some in given.items()]
        write_sets(folder / "benchmarks.jsonl", sets)
        return sets, by_id

    def answers(self, stage: str, role: str, traces: Sequence[Trace], right: Callable[[Trace], bool | None]) -> Answers:
        """Write a model's answers and verdicts."""
        folder = self.folder / stage / role
        with Ledger(folder / "ledger.jsonl") as ledger:
            ledger.append(traces)
        traces = sorted(traces, key=lambda trace: trace.key)
        verdicts = [
            Verdict(t.problem_id, t.sample_index, None, None, ("error",))
            if t.finish_reason == "error"
            else Verdict(t.problem_id, t.sample_index, right(t), t.content[-9:].strip("\\boxed{}."), ())
            for t in traces
        ]
        write_jsonl(folder / "verdicts.jsonl", (verdict.to_json() for verdict in verdicts))
        return Answers(f"org/{role}", traces, verdicts)

    def summarise(self) -> dict[str, Any]:
        """What the runner writes after each stage."""
        summary = write_summary(self.run)
        (self.folder / "report.html").write_text(render_report(gather_run(self.folder)))
        return summary


def measured_set(name: str, problems: Sequence[Problem], **fields: Any) -> MeasuredSet:
    """A benchmark with its protocol and its hash."""
    k = fields.get("samples_per_problem", 1)
    protocol = Protocol(
        suite=name,
        problems_sha256=problems_hash(problems),
        metric=fields.get("metric", "pass@1"),
        grader="math, version 1",
        samples_per_problem=k,
        **{**SAMPLING, **fields.pop("sampling", {})},
        extraction=EXTRACTION,
        interval=INTERVAL,
        **fields.pop("protocol", {}),
    )
    others = {"metric": "pass@1", "canary": False, "style_control": False, "judge_template": None, "adaptive": None}
    return MeasuredSet(
        name=name,
        problems=[problem.id for problem in problems],
        sampling={key: getattr(protocol, key) for key in SAMPLING},
        protocol=protocol.with_hash(),
        **{**others, "samples_per_problem": k, **fields},
    )


def as_old_run(folder: Path, **protocol: Any) -> None:
    """Make a run's evaluation one of a version that recorded no protocol for each benchmark."""
    (folder / "eval" / "benchmarks.jsonl").unlink()
    path = folder / "eval" / "manifest.json"
    manifest = read_json(path)
    metrics = manifest["metrics"]
    del manifest["outputs"]["benchmarks.jsonl"]
    for row in metrics["benchmarks"]:
        del row["protocol"]
        for role in ("base", "student"):
            row[role] = {key: row[role][key] for key in OLD_KEYS}
    metrics["protocol"] |= {"samples_per_problem": 1, **protocol}
    write_json(path, manifest)


OLD_KEYS = (
    "model",
    "num_problems",
    "samples_per_problem",
    "pass_at_1",
    "interval_95",
    "truncated_share",
    "num_ungraded",
    "mean_completion_tokens",
)


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


def secret_problems(benchmark: str, num: int) -> list[Problem]:
    """Problems whose question holds SECRETQUESTION; `answer_to` gives an answer with SECRETANSWER."""
    asked = "SECRETQUESTION of {a}: how much is it with {b}?"
    problems = [sum_problem(i, 5, question=asked) for i in range(num)]
    return [
        replace(one, id=f"{benchmark}/{i:03d}", metadata={"group": "odd" if i % 2 else "even"})
        for i, one in enumerate(problems)
    ]


def answer_to(problem: Problem, right: bool | None, sample: int = 0, tokens: int = 900) -> Trace:
    """An answer that is graded as told; `None`: a failed sample."""
    if right is None:
        return replace(trace_of(problem, sample, "", "error"), error="out of memory")
    text = f"<think>\nSECRETANSWER\n</think>\n\nSECRETANSWER: \\boxed{{{problem.answer if right else 'no'}}}"
    return trace_of(problem, sample, text, tokens=tokens)


def is_right(trace: Trace) -> bool:
    return not trace.text.endswith("{no}")


@pytest.fixture
def make_bench_run(tmp_path: Path) -> Callable[..., RunMaker]:
    """A function that makes a run with an evaluation on benchmarks alone; the base is always wrong."""

    def make(
        name: str, benchmarks: dict[str, int], right: Callable[[int], bool | None] = lambda i: True, **fields: Any
    ) -> RunMaker:
        maker = RunMaker(recipe_of(name), tmp_path / "runs")
        asked = {benchmark: secret_problems(benchmark, num) for benchmark, num in benchmarks.items()}
        numbered = [(i, problem) for some in asked.values() for i, problem in enumerate(some)]
        k = fields.get("samples_per_problem", 1)
        base = [answer_to(problem, False, sample) for _, problem in numbered for sample in range(k)]
        student = [answer_to(problem, right(i), sample) for i, problem in numbered for sample in range(k)]
        maker.eval(asked, base, student, is_right, **fields)
        maker.summarise()
        return maker

    return make


def measured_run(
    runs: Path,
    models: dict[str, Callable[[int], Sequence[bool | None]]],
    benchmarks: dict[str, int],
    name: str,
    **fields: Any,
) -> RunMaker:
    """A run that only measures: model -> function from a problem's number to its samples."""
    asked = {key: secret_problems(key, num) for key, num in benchmarks.items()}
    section = {"models": [f"org/{role}" for role in models], "benchmarks": [*asked]}
    maker = RunMaker(Recipe.model_validate({"name": name, "eval": section}), runs)
    numbered = [(i, problem) for some in asked.values() for i, problem in enumerate(some)]
    answers = {
        role: [answer_to(problem, one, s, 900 << s) for i, problem in numbered for s, one in enumerate(signs(i))]
        for role, signs in models.items()
    }
    k = max(len(signs(0)) for signs in models.values())
    maker.measure(asked, answers, is_right, samples_per_problem=k, **fields)
    maker.summarise()
    return maker


@pytest.fixture
def make_measured_run(tmp_path: Path) -> Callable[..., RunMaker]:
    """A function that makes a run that only measures, on eight problems of gsm8k."""

    def make(
        models: dict[str, Any], benchmarks: dict[str, int] | None = None, name: str = "measured", **fields: Any
    ) -> RunMaker:
        return measured_run(tmp_path / "runs", models, benchmarks or {"gsm8k": 8}, name, **fields)

    return make


@pytest.fixture
def kit() -> SimpleNamespace:
    """What runs are made from by hand."""
    return SimpleNamespace(
        RunMaker=RunMaker,
        recipe_of=recipe_of,
        trace_of=trace_of,
        sum_problem=sum_problem,
        big_run=big_run,
        as_old_run=as_old_run,
        secret_problems=secret_problems,
        answer_to=answer_to,
        is_right=is_right,
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
    """Addresses of pages: `whole` of one run, `one` the same without its answers, so that the only browser is that of
    traces, `two` of two runs, and `three` of a run that measures three models.
    """
    folder = tmp_path_factory.mktemp("pages")
    one, other = gather_run(finished_runs("a", {})), gather_run(finished_runs("b", {"skill": 4}))
    (folder / "whole.html").write_text(render_report(one))
    (folder / "one.html").write_text(render_report(replace(one, answers=SideBySide())))
    (folder / "two.html").write_text(render_comparison(one, other, compare_runs(one, other)))
    maker = measured_run(folder, THREE, {"gsm8k": 30, "gpqa-diamond": 4}, "three", sampling={"max_tokens": 8192})
    (folder / "three.html").write_text(render_report(gather_run(maker.folder)))
    return {name: (folder / f"{name}.html").as_uri() for name in ("whole", "one", "two", "three")}


THREE = {
    "one": lambda i: [i % 3 == 0, i % 3 == 0],
    "two": lambda i: [i % 2 == 0, True],
    "three": lambda i: [True, None if i == 1 else True],
}


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
