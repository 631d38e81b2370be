"""The evaluation questions that the student gained or lost, with both models' answers."""

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.core.records import Problem, SampleKey, Trace, Verdict
from distill.core.redaction import redact
from distill.report.cards import problem_entry, shortened
from distill.report.passage import Passage, passage
from distill.storage.ledger import read_ledger

ROLES = ("base", "student")
MAX_QUESTIONS = 1_000
"""Gained questions on a page at most, and the same number of lost ones; others are only counted."""
LIMITS = (20_000, 10_000, 6_000, 4_000, 2_500, 1_500, 800, 400)


@dataclass(frozen=True, slots=True)
class Answer:
    """One model's results on one question, and one of its answers to show."""

    num_right: int
    num_samples: int
    is_right: bool | None
    """Of the shown answer; `None`: it could not be graded."""
    extracted: str | None
    thinking: Passage
    text: Passage
    finish: str


@dataclass(frozen=True, slots=True)
class Question:
    """A question that one of two models answers better."""

    problem: dict[str, Any]
    """As `distill.report.cards.problem_entry` returns it."""
    answers: tuple[Answer, Answer]
    """Of the first and the second model."""

    @property
    def is_gained(self) -> bool:
        """Return whether the second model answers it better."""
        one, other = (answer.num_right / answer.num_samples for answer in self.answers)
        return other > one

    def within(self, limit: int) -> dict[str, Any]:
        """Return the question for the template, with at most `limit` characters in each text."""
        answers = [
            {
                "num_right": answer.num_right,
                "num_samples": answer.num_samples,
                "is_right": answer.is_right,
                "extracted": answer.extracted,
                "thinking": answer.thinking.within(limit).to_json(),
                "thinking_share": answer.thinking.length / max(1, answer.thinking.length + answer.text.length),
                "text": answer.text.within(limit).to_json(),
                "finish": answer.finish,
            }
            for answer in self.answers
        ]
        return {"problem": self.problem, "answers": answers, "is_gained": self.is_gained}


Verdicts = Mapping[str, list[Verdict]]
"""A model's verdicts by problem id."""


def read_verdicts(folder: Path) -> Verdicts:
    """Return one model's verdicts; empty if its evaluation is not finished."""
    found: dict[str, list[Verdict]] = defaultdict(list)
    file = folder / "verdicts.jsonl"
    if file.exists():
        with file.open() as stream:
            for line in stream:
                verdict = Verdict.from_json(json.loads(line))
                found[verdict.problem_id].append(verdict)
    return found


def share_right(verdicts: list[Verdict]) -> float:
    """Return the share of right answers; an ungraded one counts as not right."""
    return sum(verdict.correct is True for verdict in verdicts) / len(verdicts)


def changed_questions(eval_dir: Path) -> list[Question]:
    """Return the questions gained and lost between base and student; gained ones first, each sorted by id.

    Args:
        eval_dir: `runs/<name>/eval`, complete; its files may have been removed.
    """
    folders = [eval_dir / role for role in ROLES]
    first, second = (read_verdicts(folder) for folder in folders)
    differ = [name for name in sorted(first.keys() & second.keys()) if _moved(first, second, name)]
    gained = [name for name in differ if share_right(second[name]) > share_right(first[name])]
    lost = sorted(set(differ) - set(gained))
    return read_questions(
        eval_dir / "problems.jsonl", [*gained[:MAX_QUESTIONS], *lost[:MAX_QUESTIONS]], folders, (first, second)
    )


def _moved(first: Verdicts, second: Verdicts, name: str) -> bool:
    return share_right(first[name]) != share_right(second[name])


def read_questions(
    problems: Path, names: list[str], folders: list[Path], verdicts: tuple[Verdicts, Verdicts]
) -> list[Question]:
    """Return questions with one answer of each of two models that shows the difference.

    Args:
        problems: file of the problems.
        names: ids of the problems, in order.
        folders: of both models, with their ledgers.
        verdicts: of both models.
    """
    wanted = set(names)
    texts = {row.id: row for row in _problems(problems) if row.id in wanted}
    better = {name: share_right(verdicts[1][name]) > share_right(verdicts[0][name]) for name in names}
    found: list[dict[str, Answer]] = []
    for place, (folder, given) in enumerate(zip(folders, verdicts, strict=True)):
        # A right answer of the better model, a wrong one of the other.
        telling = {name: _telling(given[name], better[name] is (place == 1)) for name in names}
        found.append(_answers(folder, given, telling))
    return [
        Question(
            problem_entry(name, texts[name].source, texts[name].question, texts[name].answer),
            (found[0][name], found[1][name]),
        )
        for name in names
        if name in texts and name in found[0] and name in found[1]
    ]


def _telling(verdicts: list[Verdict], is_right: bool) -> Verdict:
    return next((verdict for verdict in verdicts if (verdict.correct is True) is is_right), verdicts[0])


def _answers(folder: Path, verdicts: Verdicts, telling: Mapping[str, Verdict]) -> dict[str, Answer]:
    """Read the chosen answers in one pass over a model's ledger."""
    wanted: dict[SampleKey, Verdict] = {verdict.key: verdict for verdict in telling.values()}
    found: dict[str, Answer] = {}
    for trace in read_ledger(folder / "ledger.jsonl"):
        verdict = wanted.get(trace.key)
        if verdict is not None and (trace.problem_id not in found or trace.finish_reason != "error"):
            found[trace.problem_id] = _answer(trace, verdict, verdicts[trace.problem_id])
    return found


def _answer(trace: Trace, verdict: Verdict, verdicts: list[Verdict]) -> Answer:
    return Answer(
        num_right=sum(one.correct is True for one in verdicts),
        num_samples=len(verdicts),
        is_right=verdict.correct,
        extracted=shortened(verdict.extracted_answer),
        thinking=passage(redact(trace.reasoning)),
        text=passage(redact(trace.content or trace.error)),
        finish=trace.finish_reason,
    )


def shown_questions(
    questions: Sequence[Question], budget: int, num_bytes: Callable[[dict[str, Any]], int]
) -> list[dict[str, Any]]:
    """Return the questions for the template, with texts shortened until all fit; then some of each kind are left out.

    Args:
        questions: gained and lost ones.
        budget: bytes on the page.
        num_bytes: returns a question's size on the page, including markup and escapes.
    """
    taken: dict[int, dict[str, Any]] = {}
    order = _by_turns(questions)
    for limit in LIMITS:
        taken, left = {}, budget
        for place in order:
            shown = questions[place].within(limit)
            left -= num_bytes(shown)
            if left < 0:
                break
            taken[place] = shown
        if len(taken) == len(questions):
            break
    return [taken[place] for place in sorted(taken)]


def _by_turns(questions: Sequence[Question]) -> list[int]:
    """Return the indices in an order in which every prefix has gained and lost ones in the overall proportion."""
    kinds: dict[bool, list[int]] = {True: [], False: []}
    for place, question in enumerate(questions):
        kinds[question.is_gained].append(place)
    shares = [(number / len(places), place) for places in kinds.values() for number, place in enumerate(places)]
    return [place for _, place in sorted(shares)]


def _problems(file: Path) -> Iterator[Problem]:
    if not file.is_file():
        return
    with file.open() as stream:
        for line in stream:
            yield Problem.from_json(json.loads(line))
