"""What an evaluation asks: each benchmark with its problems, sampling and protocol.

The stored form, a line of `benchmarks.jsonl`:

    {"name": "aime24", "samples_per_problem": 64, "sampling": {"temperature": 0.6, …}, "problems": ["aime24/60", …],
     "metric": "pass@1", "canary": false, "baseline": null, "style_control": false, "protocol": {"hash": "6d0c…", …}}
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from distill.core.plurals import counted
from distill.core.records import Problem
from distill.errors import UserError
from distill.grading import GRADER_VERSION
from distill.grading.code.grader import CODE
from distill.grading.code.testing import CODE_VERSION
from distill.grading.comparisons import COMPARISON_VERSION, Kind, Template, check_verdicts, prompt_hash
from distill.recipe.eval import EvalConfig
from distill.recipe.filter import Judge
from distill.recipe.model import Recipe
from distill.recipe.suites import FILE, BenchmarkSource, Suite, load_suite
from distill.results.eval import Protocol
from distill.sources.baselines import load_baseline
from distill.sources.contests import load_contests
from distill.sources.problems import named_benchmarks
from distill.storage.case_files import tests_identity
from distill.storage.files import write_jsonl

EXTRACTION = (
    "last valid \\boxed or <answer>, else announced answer, else last formula or number; cut-off answers: \\boxed only"
)
SUMMARY_ONLY = "the text after the thinking, whole"
PROGRAM = "last fenced block after the thinking, in the tests' language; cut-off answers: closed ones only"
INTERVAL = "95%, over problems as clusters of their samples (docs/scores.md)"
BASELINE = "baseline"
"""Key of a problem's metadata: the answer that a judge compares with."""
KINDS: dict[str, Kind] = {"short-answers": "short_answer", "win-rate": "preference", "arena": "arena"}
"""Metric -> what the judge is asked."""


@dataclass(frozen=True, slots=True)
class MeasuredSet:
    """One benchmark as it is measured."""

    name: str
    samples_per_problem: int
    sampling: dict[str, Any]
    problems: list[str]
    """Ids, in order."""
    metric: str
    canary: bool
    """Its text is not shown in reports, cards and logs."""
    style_control: bool
    judge_template: str | None
    """Path of another wording for the judge."""
    adaptive: dict[str, Any] | None
    protocol: Protocol
    show: list[str] = field(default_factory=list)
    """Figures to show beside the score, such as `cons@64`."""
    judge_labels: dict[str, str] = field(default_factory=dict)
    """What the words of another wording stand for."""
    contests: str | None = None
    """`file:path` of the rated rounds from which a rating is worked out."""

    @property
    def is_judged(self) -> bool:
        return self.metric in KINDS

    def to_json(self) -> dict[str, Any]:
        """Return it JSON-ready."""
        fields = {key: getattr(self, key) for key in self.__slots__ if key != "protocol"}
        return {**fields, "protocol": self.protocol.to_json()}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> "MeasuredSet":
        """Return the set in a stored row."""
        fields = {key: row[key] for key in cls.__slots__ if key != "protocol" and key in row}
        return cls(**fields, protocol=Protocol.from_json(row["protocol"]))


def measured_sets(recipe: Recipe, benchmarks: Mapping[str, Sequence[Problem]]) -> list[MeasuredSet]:
    """Return what a recipe measures.

    Args:
        recipe: a recipe with `eval:`, without rounds.
        benchmarks: problems by benchmark, from `load_problem_sets`.

    Raises:
        UserError: another wording for a judge cannot be read or used.
    """
    config = recipe.eval
    assert config is not None
    found = []
    for name, source in named_benchmarks(recipe).items():
        problems = benchmarks[name]
        found.append(
            MeasuredSet(
                name=name,
                samples_per_problem=config.k_of(source),
                sampling=config.sampling_of(source).model_dump(mode="json"),
                problems=[problem.id for problem in problems],
                metric=source.metric if source else "pass@1",
                canary=source is not None and source.canary,
                style_control=source is not None and source.style_control,
                show=list(source.show) if source else [],
                contests=source.contests if source else None,
                judge_template=source.judge_template if source else None,
                judge_labels=dict(source.judge_labels) if source else {},
                adaptive=source.adaptive.model_dump(mode="json") if source and source.adaptive else None,
                protocol=protocol_of(config, source, problems),
            )
        )
    return found


def with_baselines(recipe: Recipe, benchmarks: Mapping[str, Sequence[Problem]]) -> dict[str, list[Problem]]:
    """Return the benchmarks with the baseline's answer in the metadata of the problems that are compared with it.

    Raises:
        ProblemError: a baseline cannot be loaded, or lacks an answer.
    """
    found = {}
    for name, source in named_benchmarks(recipe).items():
        problems = list(benchmarks[name])
        if source is not None and source.baseline is not None:
            answers = load_baseline(source.baseline, problems, source.template)
            problems = [with_metadata(problem, {BASELINE: answers[problem.id]}) for problem in problems]
        found[name] = problems
    return found


def with_metadata(problem: Problem, more: Mapping[str, Any]) -> Problem:
    """Return a problem with further metadata."""
    return replace(problem, metadata={**problem.metadata, **more})


def protocol_of(config: EvalConfig, source: BenchmarkSource | None, problems: Sequence[Problem]) -> Protocol:
    """Return the conditions of a benchmark's scores; `None` stands for the held-out problems.

    Raises:
        UserError: another wording for a judge cannot be read or used.
    """
    sampling = config.sampling_of(source)
    suite = source.suite if source else None
    named = load_suite(suite) if suite is not None and not suite.startswith(FILE) else None
    metric = source.metric if source else "pass@1"
    fields: dict[str, Any] = {
        "suite": Path(suite).stem if suite is not None and suite.startswith(FILE) else suite,
        "named": config.named_protocol(source),
        "problems_sha256": problems_hash(problems),
        "prompt": source.template if source else None,
        "options": "shuffled for each question" if source and source.shuffle_options else None,
        "metric": metric,
        "contests": contests_words(source.contests) if source and source.contests else None,
        "samples_per_problem": config.k_of(source),
        **sampling.model_dump(mode="json"),
        "comparable_with": _comparable(named, metric in KINDS),
        "interval": INTERVAL,
        **grading_of_today(
            problems,
            metric,
            config.judge,
            source.judge_template if source else None,
            source.judge_labels if source else {},
        ),
    }
    return Protocol(**{key: value for key, value in fields.items() if value is not None}).with_hash()


def grading_of_today(
    problems: Iterable[Problem],
    metric: str,
    judge: Judge | None,
    judge_template: str | None,
    judge_labels: Mapping[str, str],
) -> dict[str, Any]:
    """Return the parts of a protocol that say how answers are graded.

    Raises:
        UserError: another wording for the judge cannot be read or used.
    """
    if metric in KINDS:
        words = judge_words(judge, metric, judge_template, judge_labels) if judge else None
        return {"grader": None, "judge": words, "extraction": SUMMARY_ONLY}
    tasks = sorted({problem.task for problem in problems})
    extraction = SUMMARY_ONLY if tasks == ["instructions"] else _extraction(tasks)
    return {"grader": _grader(tasks), "judge": None, "extraction": extraction}


def _grader(tasks: Sequence[str]) -> str:
    """Return what grades answers, with its version."""
    others = ", ".join(task for task in tasks if task != CODE)
    found = [f"{others}, version {GRADER_VERSION}"] * bool(others) + [f"{CODE}, version {CODE_VERSION}"] * (
        CODE in tasks
    )
    return "; ".join(found)


def _extraction(tasks: Sequence[str]) -> str:
    found = [EXTRACTION] * any(task != CODE for task in tasks) + [PROGRAM] * (CODE in tasks)
    return "; programs: ".join(found)


def _comparable(suite: Suite | None, is_judged: bool) -> str | None:
    if suite is None:
        return None
    if not is_judged or suite.judge is None:
        return suite.comparable_with or None
    return f"Not comparable with published scores, whose judge is {suite.judge}, unless judge and wording are the same."


def problems_hash(problems: Iterable[Problem]) -> str:
    """Return the SHA-256 (hex) of problems as they are asked and graded, in any order and whatever their ids."""
    digest = hashlib.sha256()
    for line in sorted(json.dumps(_asked_and_graded(problem), sort_keys=True) for problem in problems):
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()


def _asked_and_graded(problem: Problem) -> list[Any]:
    told: list[Any] = [problem.prompt, problem.answer, problem.task, problem.metadata]
    return told if problem.tests is None else [*told, tests_identity(problem.tests)]


def judge_words(judge: Judge, metric: str, judge_template: str | None, judge_labels: Mapping[str, str]) -> str:
    """Return who judges, and how, in words.

    Raises:
        UserError: another wording cannot be read or used.
    """
    kind, template = KINDS[metric], template_of(judge_template)
    wording = prompt_hash(kind, template)
    if template is not None and not judge_labels:
        check_verdicts(kind, template)
    drawn = ", ".join(f"{key} {value}" for key, value in judge.sampling.model_dump().items())
    words = ", ".join(f"{word} = {meant}" for word, meant in sorted(judge_labels.items()))
    return (
        f"{judge.model}; {drawn}; at most {judge.max_chars} characters of an answer; wording {wording[:16]}; verdicts "
        f"{words or 'as asked for'}, read by version {COMPARISON_VERSION}"
    )


def contests_words(source: str) -> str:
    """Return the rated rounds in a file, in words.

    Raises:
        ProblemError: it cannot be read.
    """
    found = load_contests(source)
    return f"{counted(len(found.rounds), 'rated round')}, SHA-256 {found.sha256[:16]}"


def template_of(path: str | None) -> Template | None:
    """Return the judge's wording in a file, of which a line `---` may separate the system message; `None` for none.

    Raises:
        UserError: it cannot be read.
    """
    if path is None:
        return None
    file = Path(path.removeprefix(FILE))
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"judge_template: {file} cannot be read ({error}). Name a text file.") from None
    system, rule, user = text.partition("\n---\n")
    return Template(user, system) if rule else Template(text)


def write_sets(path: Path, sets: Iterable[MeasuredSet]) -> None:
    """Store the sets, a line each."""
    write_jsonl(path, (one.to_json() for one in sets))


def read_sets(path: Path) -> list[MeasuredSet]:
    """Return stored sets.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        with path.open(encoding="utf-8") as stream:
            return [MeasuredSet.from_json(json.loads(line)) for line in stream]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: cannot be read as benchmarks of an evaluation ({error}). Evaluate again.") from None
