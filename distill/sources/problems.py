"""Load problems from Hub datasets, local files or reasoning-gym, and split off those for evaluation.

Example of a `Problem` record:

    {"id": "9f2c…", "prompt": [{"role": "user", "content": "What is 2 + 2?"}], "answer": "4", "task": "math",
     "source": "hf:openai/gsm8k", "metadata": {}}
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from distill.core.records import CodeTests, Problem, problem_id
from distill.errors import ProblemError
from distill.grading.gym_tasks import gym_questions
from distill.isolation import FunctionError, IsolationError, call_isolated
from distill.recipe.model import Recipe
from distill.recipe.problems import ProblemSource
from distill.recipe.rl_faults import judge_of
from distill.recipe.suites import BenchmarkSource
from distill.sources.problem_rows import content_hash, problems_of, prompt_around, read_rows, rows_of
from distill.sources.tables import Row

HELD_OUT = "held-out"
DEFAULT_GYM_SIZE = 500
GYM_START_S, GYM_ENTRY_S, GYM_GIB = 120.0, 10.0, 8.0
"""Limits for generating a data set: time to start, time per entry (some tasks need seconds) and memory."""
NO_GOLD = ("instructions", "win-rate", "arena")
"""Metrics that compare with no expected answer."""


@dataclass(frozen=True, slots=True)
class ProblemSets:
    """Training problems and evaluation problems, disjoint by id and by question."""

    train: list[Problem]
    benchmarks: dict[str, list[Problem]]
    """Evaluation problems by benchmark name; the held-out split comes first, as `held-out`."""
    num_by_source: dict[str, int]
    """Training problems by source."""
    num_excluded: int
    """Problems kept out of training because an evaluation set holds the same id or question."""
    measured_questions: frozenset[str]
    """The evaluation's questions, as returned by `bare_question`."""


def load_problem_sets(recipe: Recipe, store: Path | None = None) -> ProblemSets:
    """Load all problems of a recipe and split them.

    Args:
        recipe: the recipe.
        store: folder for long tests of programs; `None`: a temporary one.

    Raises:
        ProblemError: a source cannot be loaded or has unusable rows, or nothing is left to train on.
    """
    questions: dict[str, str] = {}

    def load(source: ProblemSource, is_answerless: bool, suite: str = "") -> list[Problem]:
        problems = load_problems(source, recipe.seed, is_answerless, store=store)
        if suite:  # suites number their items from 1 each
            problems = [replace(problem, id=f"{suite}/{problem.id}") for problem in problems]
        questions.update((p.id, bare_question(p.question, source.template, p.tests)) for p in problems)
        return problems

    loaded = [(source, load(source, may_lack_answers(source, recipe))) for source in recipe.problems]
    pool = _distinct(problem for _, problems in loaded for problem in problems)
    benchmarks: dict[str, list[Problem]] = {}
    if recipe.eval and recipe.eval.held_out:
        # Of sources that all rounds have, so that all rounds hold out the same problems.
        shared = _distinct(problem for source, problems in loaded if not source.rounds for problem in problems)
        gradable = [one for one in shared if one.answer is not None or one.tests is not None or one.task == "gym"]
        if recipe.eval.held_out >= len(gradable):
            raise ProblemError(
                f"eval.held_out ({recipe.eval.held_out}) leaves no problem to train on: the sources have "
                f"{len(gradable)} distinct ones with answers. Lower eval.held_out or raise a source's limit."
            )
        benchmarks[HELD_OUT] = draw(gradable, recipe.eval.held_out, f"held-out/{recipe.seed}")
    for name, source in named_benchmarks(recipe).items():
        if source is not None:
            own_name = name if source.suite is not None else ""
            benchmarks[name] = _distinct(load(source, may_lack_answers(source, recipe), own_name))
    measured = [p for problems in benchmarks.values() for p in problems]
    _distinct([*pool, *measured])  # one id for two problems would mix up their answers
    measured_ids = {p.id for p in measured}
    measured_questions = {questions[id_] for id_ in measured_ids}
    train = [p for p in pool if p.id not in measured_ids and questions[p.id] not in measured_questions]
    benchmarks = _told_apart(benchmarks, recipe)
    if not train and recipe.problems:
        raise ProblemError(
            "problems: every problem is in an evaluation set too, so none is left to train on. Add other sources."
        )
    counts: dict[str, int] = {}
    for problem in train:
        counts[problem.source] = counts.get(problem.source, 0) + 1
    num_held_out = len(benchmarks.get(HELD_OUT, ()))
    num_excluded = len(pool) - len(train) - num_held_out
    return ProblemSets(train, benchmarks, counts, num_excluded, frozenset(measured_questions))


def named_benchmarks(recipe: Recipe) -> dict[str, BenchmarkSource | None]:
    """Return what the recipe evaluates on, by name, in order; `None` stands for the held-out problems."""
    found: dict[str, BenchmarkSource | None] = {HELD_OUT: None} if recipe.eval and recipe.eval.held_out else {}
    for source in recipe.eval.benchmarks if recipe.eval else []:
        name = benchmark_name(source)
        while name in found:
            name += "+"  # gsm8k, gsm8k+: two sets of one name
        found[name] = source
    return found


def _told_apart(benchmarks: Mapping[str, list[Problem]], recipe: Recipe) -> dict[str, list[Problem]]:
    """Return the benchmarks with their names in the ids where one id would be sampled or graded in two ways.

    Samples and verdicts are stored by id.
    """
    assert recipe.eval is not None or not benchmarks
    sources = named_benchmarks(recipe)
    found: dict[str, list[Problem]] = {}
    measured_as: dict[str, list[Any]] = {}
    for name, problems in benchmarks.items():
        source, config = sources[name], recipe.eval
        assert config is not None
        graded = {"adaptive", "metric", "baseline", "judge_template", "judge_labels"}
        kept = {} if source is None else source.model_dump(mode="json", include=graded, exclude_defaults=True)
        way = [config.k_of(source), config.sampling_of(source), kept]
        ways = {problem.id: [*way, problem.task, problem.metadata] for problem in problems}
        is_two_ways = any(measured_as.get(name, own) != own for name, own in ways.items())
        found[name] = [replace(p, id=f"{name}/{p.id}") for p in problems] if is_two_ways else problems
        measured_as.update((new.id, ways[old.id]) for new, old in zip(found[name], problems, strict=True))
    return found


def has_stand_in(recipe: Recipe) -> bool:
    """Return whether training problems may lack an expected answer, because a vote or a judge replaces it."""
    judge = recipe.filter.judge
    return recipe.filter.majority is not None or (judge is not None and judge.role != "veto")


def may_lack_answers(source: ProblemSource, recipe: Recipe, is_measured: bool = False) -> bool:
    """Return whether problems of a source may lack an expected answer.

    Args:
        source: of training problems or of a benchmark.
        recipe: the source's recipe.
        is_measured: whether the source is evaluated on, if it is not a `BenchmarkSource`.
    """
    if isinstance(source, BenchmarkSource):
        return source.metric in NO_GOLD
    is_rewarded = source.task == "judge" and judge_of(recipe) is not None
    return not is_measured and (has_stand_in(recipe) or is_rewarded)


def load_problems(
    source: ProblemSource,
    seed: int,
    may_lack_answers: bool = False,
    rows: Iterable[Row] | None = None,
    store: Path | None = None,
) -> list[Problem]:
    """Load the problems of one source: at most `limit`, drawn with the source's seed or else `seed`.

    Args:
        source: what to read, and how.
        seed: seed of the draw if the source has none.
        may_lack_answers: keep problems without an expected answer instead of raising.
        rows: the first rows of a file, if only these are to be read; `None`: read all.
        store: folder for long tests of programs; `None`: a temporary one, removed when this process ends.

    Raises:
        ProblemError: the source cannot be loaded, is empty, or has rows without a question or answer.
    """
    kind, _, name = source.source.partition(":")
    draw_seed = seed if source.seed is None else source.seed
    if kind == "gym":
        problems = _gym_problems(source, name, draw_seed)
    else:
        is_part = rows is not None
        read = read_rows(source, rows_of(source) if rows is None else rows, may_lack_answers, store)
        if source.sha256 is not None and not is_part and (found := content_hash(read)) != source.sha256:
            raise ProblemError(
                f"{source.source}: its content has the SHA-256 {found}, not {source.sha256} as stated, so a score "
                "on it would not be a score on the same problems. Use the stated revision, or set sha256: null."
            )
        problems = problems_of(source, read, draw_seed)
        if isinstance(source, BenchmarkSource) and source.suite is not None and source.columns.id is None:
            problems = _numbered(problems)
    if not problems:
        raise ProblemError(f"{source.source}: the problem set is empty. Give one with rows, or another split.")
    if source.limit is None or kind == "gym":
        return problems
    return draw(_distinct(problems), source.limit, f"limit/{draw_seed}")


def draw(problems: Iterable[Problem], num: int, salt: str) -> list[Problem]:
    """Draw problems with a seed, independently of their order; the result is sorted by hashes of their ids."""
    return sorted(problems, key=lambda p: hashlib.sha256(f"{salt}/{p.id}".encode()).digest())[:num]


def problems_fingerprint(problems: Iterable[Problem]) -> str:
    """Return the SHA-256 (hex) of the problems, independent of their order."""
    digest = hashlib.sha256()
    for line in sorted(json.dumps(p.to_json(), sort_keys=True) for p in problems):
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()


def benchmark_name(source: ProblemSource) -> str:
    """Return a short name for an evaluation source: `gsm8k_test` for `file:/somewhere/gsm8k_test.jsonl`."""
    named = source.suite if isinstance(source, BenchmarkSource) and source.suite else source.source
    kind, colon, rest = named.partition(":")
    return Path(rest).stem if colon and kind in ("file", "hf", "gym") else named


def _distinct(problems: Iterable[Problem]) -> list[Problem]:
    by_id: dict[str, Problem] = {}
    for problem in problems:
        known = by_id.setdefault(problem.id, problem)
        if (known.prompt, known.answer, known.tests) != (problem.prompt, problem.answer, problem.tests):
            raise ProblemError(
                f"id {problem.id!r} stands for two different problems ({known.source} and {problem.source}). "
                "Leave columns.id out to have ids made from the content."
            )
    return list(by_id.values())


def _numbered(problems: Iterable[Problem]) -> list[Problem]:
    """Return problems of which each repeated one has an id of its own.

    A published score counts every row, and 105 of MMLU's repeat another.
    """
    seen: Counter[str] = Counter()
    found = []
    for problem in problems:
        seen[problem.id] += 1
        number = seen[problem.id]
        found.append(problem if number == 1 else replace(problem, id=f"{problem.id}-{number}"))
    return found


def bare_question(question: str, template: str, tests: CodeTests | None = None) -> str:
    """Return a question in canonical form, without its template, which may show its tests."""
    # Two sets may wrap the same question in different templates.
    first, _, last = template.partition("{problem}")
    if tests is not None and "{tests}" in first + last:
        first, last = prompt_around(template, (), tests)
    if "{options}" not in first + last:
        question = question.removeprefix(first).removesuffix(last)
    return re.sub(r"\s+", " ", question).strip().casefold()


def _gym_problems(source: ProblemSource, task: str, seed: int) -> list[Problem]:
    """Generate reasoning-gym problems, with the metadata to regenerate their entries, which the scorer needs."""
    recipe = {"task": task, "options": source.options, "size": source.limit or DEFAULT_GYM_SIZE, "seed": seed}
    problems: dict[str, Problem] = {}
    for index, (question, answer) in enumerate(_gym_questions(recipe)):
        prompt = [{"role": "user", "content": source.template.replace("{problem}", question)}]
        name = problem_id(prompt, source.task or "gym", answer)
        metadata = {"gym": {**recipe, "index": index}} if source.task != "math" else {}
        problems.setdefault(name, Problem(name, prompt, answer, source.task or "gym", source.source, metadata))
    return list(problems.values())


def _gym_questions(recipe: Mapping[str, Any]) -> list[tuple[str, str | None]]:
    """Return generated questions and answers.

    Raises:
        ProblemError: an unknown task, options that it rejects, or a limit that was exceeded.
    """
    # In a confined process, whose hash seed is fixed: some tasks' entries depend on it.
    task, limit_s = recipe["task"], GYM_START_S + GYM_ENTRY_S * recipe["size"]
    try:
        made: list[tuple[str, str | None]] = call_isolated(
            gym_questions, recipe, timeout_s=limit_s, memory_gib=GYM_GIB, preload=("reasoning_gym.factory",)
        )
    except FunctionError as error:
        said = error.said if error.name == ProblemError.__name__ else f"gym:{task}: {error}"
        raise ProblemError(said) from None
    except IsolationError as error:
        raise ProblemError(
            f"gym:{task}: options {recipe['options']} make entries that {error}. Change options: or lower limit:."
        ) from None
    return made
