"""Load the answers that a judge compares with: one of another model to each problem of a benchmark.

    {"arena-hard-0.1/328c149e…": "X: 1\\nT: …", "arena-hard-0.1/b43c0765…": "Here is …"}

An answer is stored as a text, as chat messages, or as FastChat's `choices`; ArenaHard's files have the last two:

    {"uid": "328c…", "messages": [{"role": "user", …}, {"role": "assistant", "content": {"answer": "X: 1\\nT: …"}}]}
    {"question_id": "328c…", "choices": [{"index": 0, "turns": [{"content": "X: 1\\nT: …", "token_len": 120}]}]}
"""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from distill.core.records import Problem
from distill.core.table_cells import CellError, answer_text
from distill.errors import ProblemError
from distill.recipe.suites import Baseline
from distill.sources.problems import bare_question
from distill.sources.tables import Row, file_rows, hub_rows

NUM_SHOWN = 5
MAX_DEPTH = 8
"""Lists and objects around an answer: ArenaHard's files have three."""


def load_baseline(baseline: Baseline, problems: Sequence[Problem], template: str = "{problem}") -> dict[str, str]:
    """Return the baseline's answer to each problem, by the problem's id.

    Args:
        baseline: where the answers are. Rows that answer none of the problems are ignored.
        problems: of one benchmark. Ids that begin with its name and a slash, as in a run, match without that.
        template: of the benchmark; a row that holds a question's text holds it without the template.

    Raises:
        ProblemError: the source cannot be loaded, a column is missing, a problem has no answer or two different ones.
    """
    wanted = _keys_of(problems, template)
    found: dict[str, str] = {}
    places: dict[str, str] = {}
    for place, row in _rows(baseline):
        for column, key in ((baseline.question, "baseline.question"), (baseline.answer, "baseline.answer")):
            _check_column(place, row, column, key)
        called = _called(place, row, baseline.question)
        ids = wanted.get(called) or wanted.get(bare_question(called, "{problem}"), [])
        answer = _answer(row[baseline.answer]) if ids else None
        for name in ids if answer is not None else ():
            if found.setdefault(name, answer or "") != answer:
                raise ProblemError(
                    f"{place}: another answer to a problem that {places[name]} answers too. Remove one of the rows."
                )
            places.setdefault(name, place)
    if missing := [problem.id for problem in problems if problem.id not in found]:
        more = ", …" if len(missing) > NUM_SHOWN else ""
        raise ProblemError(
            f"{baseline.source}: {baseline.name} has no answer to {len(missing)} of {len(problems)} problems "
            f"({', '.join(missing[:NUM_SHOWN])}{more}). Check baseline.question ({baseline.question!r}) and "
            f"baseline.answer ({baseline.answer!r}), or give a file with answers to all of them."
        )
    return {problem.id: found[problem.id] for problem in problems}


def _rows(baseline: Baseline) -> Iterator[Row]:
    kind, _, name = baseline.source.partition(":")
    if kind == "hf":
        return hub_rows(name, None, baseline.split, baseline.revision, [baseline.file] if baseline.file else [])
    return file_rows(Path(name))


def _keys_of(problems: Sequence[Problem], template: str) -> dict[str, list[str]]:
    """Return problem ids by what a row may call them: the id, the id without the benchmark's name, or the question."""
    found: dict[str, list[str]] = {}
    for problem in problems:
        own_id = problem.id.partition("/")[2] or problem.id
        for key in {problem.id, own_id, bare_question(problem.question, template)}:
            found.setdefault(key, []).append(problem.id)
    return found


def _called(place: str, row: Mapping[str, Any], column: str) -> str:
    try:
        return answer_text(row[column]) or ""
    except CellError as error:
        raise ProblemError(f"{place}: column {column!r} (baseline.question) {error}. Fix or remove the row.") from None


def _check_column(place: str, row: Mapping[str, Any], column: str, key: str) -> None:
    if column in row:
        return
    near = difflib.get_close_matches(column, row, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ProblemError(f"{place}: no column {column!r} ({key}).{hint} There are: {', '.join(row)}.")


def _answer(value: Any, depth: int = 0) -> str | None:
    """Return the answer in a cell; `None` if there is none."""
    if isinstance(value, str):
        return value if value.strip() else None
    if depth > MAX_DEPTH:
        return None
    if isinstance(value, Mapping):  # one message, one choice, or ArenaHard's {"answer": …}
        held = next((value[key] for key in ("answer", "content", "turns") if value.get(key) is not None), None)
        return _answer(held, depth + 1)
    if isinstance(value, list) and value:
        return _answer(_last_of(value), depth + 1)
    return None


def _last_of(messages: Sequence[Any]) -> Any:
    """Return the last message of the assistant, or the last entry of a list without roles."""
    spoken = [one for one in messages if isinstance(one, Mapping) and "role" in one]
    if not spoken:
        return messages[-1]
    return next((one for one in reversed(spoken) if one["role"] == "assistant"), None)
