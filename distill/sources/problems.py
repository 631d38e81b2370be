"""Load problems from Hub datasets, local files or reasoning-gym, and split off those for evaluation.

Example of a `Problem` record:

    {"id": "9f2c…", "prompt": [{"role": "user", "content": "What is 2 + 2?"}], "answer": "4", "task": "math",
     "source": "hf:openai/gsm8k", "metadata": {}}
"""

import difflib
import hashlib
import json
import re
import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from distill.core.records import Message, Problem, problem_id
from distill.core.table_cells import CellError, answer_text
from distill.errors import ProblemError
from distill.grading.golds import ChoiceGold, UnreadableGoldError, read_choice_golds, strip_answer
from distill.grading.gym_tasks import gym_questions
from distill.grading.options import options_of
from distill.isolation import FunctionError, IsolationError, call_isolated
from distill.recipe.model import Recipe
from distill.recipe.problems import ProblemSource
from distill.recipe.traces import TraceSource
from distill.sources.tables import Row, file_rows, hub_rows

HELD_OUT = "held-out"
DEFAULT_GYM_SIZE = 500
GYM_START_S, GYM_ENTRY_S, GYM_GIB = 120.0, 10.0, 8.0
"""Limits for generating a data set: time to start, time per entry (some tasks need seconds) and memory."""
PROBLEM_COLUMNS = ("problem", "question", "prompt", "instruction")
OPTION_COLUMNS = ("options", "choices")
ANSWER_COLUMNS = ("answer", "expected_answer", "gtruth_answer", "solution")


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


def load_problem_sets(recipe: Recipe) -> ProblemSets:
    """Load all problems of a recipe and split them.

    Raises:
        ProblemError: a source cannot be loaded or has unusable rows, or nothing is left to train on.
    """
    questions: dict[str, str] = {}

    stand_in = has_stand_in(recipe)

    def load(source: ProblemSource, may_lack_answers: bool = False) -> list[Problem]:
        problems = load_problems(source, recipe.seed, may_lack_answers)
        questions.update((p.id, bare_question(p.question, source.template)) for p in problems)
        return problems

    pool = _distinct(p for source in recipe.problems for p in load(source, stand_in))
    benchmarks: dict[str, list[Problem]] = {}
    if recipe.eval and recipe.eval.held_out:
        gradable = [problem for problem in pool if problem.answer is not None or problem.task == "gym"]
        if recipe.eval.held_out >= len(gradable):
            raise ProblemError(
                f"eval.held_out ({recipe.eval.held_out}) leaves no problem to train on: the sources have "
                f"{len(gradable)} distinct ones with answers. Lower eval.held_out or raise a source's limit."
            )
        benchmarks[HELD_OUT] = draw(gradable, recipe.eval.held_out, f"held-out/{recipe.seed}")
    for source in recipe.eval.benchmarks if recipe.eval else []:
        name = benchmark_name(source)
        while name in benchmarks:
            name += "+"  # gsm8k, gsm8k+: two sets of one name
        benchmarks[name] = _distinct(load(source))
    measured = [p for problems in benchmarks.values() for p in problems]
    _distinct([*pool, *measured])  # one id for two problems would mix up their answers
    measured_ids = {p.id for p in measured}
    measured_questions = {questions[id_] for id_ in measured_ids}
    train = [p for p in pool if p.id not in measured_ids and questions[p.id] not in measured_questions]
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


def has_stand_in(recipe: Recipe) -> bool:
    """Return whether training problems may lack an expected answer, because a vote or a judge replaces it."""
    judge = recipe.filter.judge
    return recipe.filter.majority is not None or (judge is not None and judge.role != "veto")


def load_problems(
    source: ProblemSource, seed: int, may_lack_answers: bool = False, rows: Iterable[Row] | None = None
) -> list[Problem]:
    """Load the problems of one source: at most `limit`, drawn with the source's seed or else `seed`.

    Args:
        source: what to read, and how.
        seed: seed of the draw if the source has none.
        may_lack_answers: keep problems without an expected answer instead of raising.
        rows: the first rows of a file, if only these are to be read; `None`: read all.

    Raises:
        ProblemError: the source cannot be loaded, is empty, or has rows without a question or answer.
    """
    kind, _, name = source.source.partition(":")
    draw_seed = seed if source.seed is None else source.seed
    if kind == "gym":
        problems = _gym_problems(source, name, draw_seed)
    else:
        is_hub = kind == "hf"
        if rows is None:
            rows = hub_rows(name, source.config, source.split, source.revision) if is_hub else file_rows(Path(name))
        problems = _problems_from_rows(source, rows, may_lack_answers)
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
    return Path(source.source.partition(":")[2]).stem


def _distinct(problems: Iterable[Problem]) -> list[Problem]:
    by_id: dict[str, Problem] = {}
    for problem in problems:
        known = by_id.setdefault(problem.id, problem)
        if (known.prompt, known.answer) != (problem.prompt, problem.answer):
            raise ProblemError(
                f"id {problem.id!r} stands for two different problems ({known.source} and {problem.source}). "
                "Leave columns.id out to have ids made from the content."
            )
    return list(by_id.values())


def bare_question(question: str, template: str) -> str:
    """Return a question in canonical form, without its template."""
    # Two sets may wrap the same question in different templates.
    first, _, last = template.partition("{problem}")
    if "{options}" not in first + last:
        question = question.removeprefix(first).removesuffix(last)
    return re.sub(r"\s+", " ", question).strip().casefold()


def _problems_from_rows(source: ProblemSource, rows: Iterable[Row], may_lack_answers: bool) -> list[Problem]:
    read: list[_ReadRow] = []
    without_answer = []
    columns: tuple[str, str | None] | None = None
    for place, row in rows:
        columns = columns or _pick_columns(source, row, place, may_lack_answers)
        found = _read_row(source, place, row, columns)
        if found.answer is None and not may_lack_answers:
            without_answer.append(place)
        else:
            read.append(found)
    if without_answer:
        marker = f" after {source.answer_after!r}" if source.answer_after else ""
        column = columns[1] if columns else "answer"
        raise ProblemError(
            f"{source.source}: {len(without_answer)} rows have no answer in column {column!r}{marker} "
            f"({_shown(without_answer)}). "
            "Such a problem cannot be graded: remove these rows, name the right column in columns.answer, or set "
            "filter.majority to let a problem's traces vote."
        )
    answers = _choice_answers(source, read) if source.task == "choice" else [row.answer for row in read]
    return [_problem_of_row(source, row, answer) for row, answer in zip(read, answers, strict=True)]


class _Options(NamedTuple):
    """The options of a row."""

    texts: list[str]
    labels: list[str]
    """The row's own labels (`["1", "2"]`), if it has any."""
    are_numbers: bool = False


@dataclass(frozen=True, slots=True)
class _ReadRow:
    """A row, read before the meaning of its source's answers is known."""

    place: str
    prompt: list[Message]
    value: Any
    """The answer as stored."""
    answer: str | None
    options: _Options
    own_id: str | None


def _read_row(source: ProblemSource, place: str, row: Mapping[str, Any], columns: tuple[str, str | None]) -> _ReadRow:
    question = row.get(columns[0])
    if not isinstance(question, str) or not question.strip():
        raise ProblemError(
            f"{place}: column {columns[0]!r} holds no question ({question!r:.60}). Fix or remove the row, or "
            "name another column in columns.problem."
        )
    value = row.get(columns[1]) if columns[1] else None
    try:
        answer = _final_answer(value, source.answer_after)
    except CellError as error:
        raise ProblemError(f"{place}: the answer in column {columns[1]!r} {error}. Fix or remove the row.") from None
    options = _options(source, place, row, question)
    prompt = [{"role": "user", "content": _clean(_fill(source.template, question.strip(), options.texts))}]
    own_id = row.get(source.columns.id) if source.columns.id else None
    if source.columns.id and (own_id is None or not str(own_id).strip()):
        raise ProblemError(
            f"{place}: column {source.columns.id!r} (columns.id) is missing or empty. Fix "
            "the row, or leave columns.id out to have ids made from the content."
        )
    name = None if own_id is None else _clean(str(own_id).strip())
    return _ReadRow(place, prompt, answer if source.answer_after else value, answer, options, name)


def _problem_of_row(source: ProblemSource, row: _ReadRow, answer: str | None) -> Problem:
    task = source.task or "math"
    name = problem_id(row.prompt, task, answer) if row.own_id is None else row.own_id
    metadata = {"options": row.options.texts} if row.options.texts else {}
    return Problem(name, row.prompt, answer, task, source_label(source), metadata)


def _choice_answers(source: ProblemSource, rows: Sequence[_ReadRow]) -> list[str | None]:
    """Return the answers of a multiple-choice source, with letters for indices and labels.

    Raises:
        ProblemError: some answers name no option or are ambiguous.
    """
    given = [row for row in rows if row.answer is not None]
    golds = [
        ChoiceGold(
            row.place,
            row.value,
            row.options.texts or options_of(Problem("", row.prompt, None, "choice", "")),
            row.options.labels,
            row.options.are_numbers,
        )
        for row in given
    ]
    try:
        read = iter(read_choice_golds(golds, source.answer_index))
    except UnreadableGoldError as unreadable:
        raise ProblemError(
            f"{source.source}: {len(unreadable.places)} {'row has' if len(unreadable.places) == 1 else 'rows have'} an "
            f"expected answer that cannot be read ({_shown(unreadable.places)}): {unreadable.why}. Write letters, fix "
            "or remove these rows, or say with answer_index: 0 or 1 what the first option counts as."
        ) from None
    return [None if row.answer is None else _clean(next(read)) for row in rows]


def _shown(places: Sequence[str]) -> str:
    return ", ".join(places[:5]) + (", …" if len(places) > 5 else "")


def _options(source: ProblemSource, place: str, row: Mapping[str, Any], question: str) -> _Options:
    """Return the options of a row; none if the source has no such column."""
    column = source.columns.options or _usual_options_column(source, row, question)
    if column is None:
        return _Options([], [])
    options, labels = row.get(column), []
    if isinstance(options, Mapping) and isinstance(options.get("text"), list):  # as in ARC and CommonsenseQA
        labels = [str(label) for label in options.get("label") or ()]
        options = options["text"]
    if not isinstance(options, list) or not options or not all(isinstance(o, str | int | float) for o in options):
        raise ProblemError(
            f"{place}: column {column!r} (columns.options) holds no list of options "
            f"({options!r:.60}). Fix the row, or name another column."
        )
    if len(options) > len(string.ascii_uppercase):
        raise ProblemError(
            f"{place}: {len(options)} options, but at most {len(string.ascii_uppercase)} are supported. Remove the row."
        )
    are_numbers = not all(isinstance(option, str) for option in options)
    return _Options([_clean(str(option)) for option in options], labels, are_numbers)


def _usual_options_column(source: ProblemSource, row: Mapping[str, Any], question: str) -> str | None:
    """Return the usual column that holds the options, unless the question lists them itself."""
    if source.task != "choice":
        return None

    column = next((c for c in OPTION_COLUMNS if isinstance(row.get(c), list | dict) and row[c]), None)
    asked = [{"role": "user", "content": question}]
    return None if column is None or options_of(Problem("", asked, None, "choice", "")) else column


def _fill(template: str, question: str, options: list[str]) -> str:
    """Fill a template with the question and the lettered options, which are appended if they have no place in it."""
    lettered = "\n".join(f"{letter}) {option}" for letter, option in zip(string.ascii_uppercase, options, strict=False))
    if options and "{options}" not in template:
        template += "\n\n{options}"
    # Split rather than replaced, because the question may itself contain "{options}".
    return "".join(
        question if part == "{problem}" else lettered if part == "{options}" else part
        for part in re.split(r"(\{problem\}|\{options\})", template)
    )


def _pick_columns(
    source: ProblemSource, row: Mapping[str, Any], place: str, may_lack_answers: bool
) -> tuple[str, str | None]:
    """Return the names of the question and answer columns; `None` if there is no answer column and none is needed."""

    def pick(chosen: str | None, candidates: tuple[str, ...], key: str) -> str:
        if chosen is not None and chosen in row:
            return chosen
        if chosen is not None:
            near = difflib.get_close_matches(chosen, row, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ProblemError(f"{place}: no column {chosen!r} ({key}).{hint} There are: {', '.join(row)}.")
        found = next((c for c in candidates if c in row), None)
        if found is None:
            raise ProblemError(
                f"{place}: none of the columns {', '.join(candidates)} is there; name yours in {key}. "
                f"There are: {', '.join(row)}."
            )
        return found

    question = pick(source.columns.problem, PROBLEM_COLUMNS, "columns.problem")
    if may_lack_answers and source.columns.answer is None and not any(c in row for c in ANSWER_COLUMNS):
        return question, None
    return question, pick(source.columns.answer, ANSWER_COLUMNS, "columns.answer")


def _final_answer(answer: Any, marker: str | None) -> str | None:
    text = answer_text(answer)
    if text is None:
        return None
    if marker is not None:
        _, found, text = text.rpartition(marker)
        if not found:
            return None

    return _clean(strip_answer(text)) or None


def _clean(text: str) -> str:
    """Replace lone surrogates, which tokenizers and UTF-8 files reject."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def source_label(source: ProblemSource | TraceSource) -> str:
    """Return the origin that a record states, without folders of this machine."""
    kind, _, name = source.source.partition(":")
    if kind == "file":
        return f"file:{Path(name).name}"
    return f"{kind}:{name}" + (f"/{source.config}" if source.config else "")


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
