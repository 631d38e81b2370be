"""Traces for the page's trace browser, shortened until they fit.

`Shown` holds each problem once, and traces that refer to problems by index:

    {"problem": 0, "sample": 2, "outcome": "dropped", "correct": false, "reasons": ["wrong_answer"], "details": {},
     "answer": "7", "graded_by": "rule", "length": 431, "teacher": "org/model", "finish": "stop",
     "thinking": ["So …"], "text": ["The …"]}
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

from distill.core.formatting import printable
from distill.core.records import Problem, SampleKey, Trace, Verdict
from distill.core.redaction import redact, scrub_text
from distill.core.thinking import split_reasoning
from distill.grading.code.verdicts import FAILED_TEST, OUTPUTS, TESTS_PASSED, FailedTest
from distill.grading.code.verdicts import shortened as cut_in_middle
from distill.report.embed import embedded_json
from distill.report.outcomes import Outcome, question_of
from distill.report.passage import Passage, marks_of, passage

LIMITS = (100_000, 60_000, 40_000, 25_000, 16_000, 12_000, 9_000, 7_000, 5_000)
"""Limits in characters for a thinking or an answer, tried in turn."""
SMALL_LIMITS = (3_500, 2_500, 1_500, 800, 400)
"""Limits tried once the number of traces is down to `MIN_TRACES`."""
MIN_TRACES = 400
MAX_QUESTION_CHARS = 4_000
MAX_ANSWER_CHARS = 400
MAX_DETAIL_CHARS = 300
MAX_TEST_CHARS = 600
"""Of each text of a failing test."""
TEST_TEXTS = ("end", "input", "expected", "got", "detail")
MAX_NAME_CHARS = 200
CARD_BYTES = 400
"""Approximate size of a trace without its texts."""

LanguageOf = Callable[[str], str | None]
"""Returns the language that a question's traces should be in, ISO 639-1; `None`: any."""


@dataclass(frozen=True, slots=True)
class Card:
    """One trace to show."""

    key: SampleKey
    facts: dict[str, Any]
    """Everything but its texts, JSON-ready."""
    thinking: Passage
    text: Passage
    problem: dict[str, Any]

    def within(self, limit: int) -> "Card":
        """Return the card with at most `limit` characters in each text."""
        return replace(self, thinking=self.thinking.within(limit), text=self.text.within(limit))

    def num_bytes(self, limit: int) -> int:
        """Return the approximate size on the page."""
        return CARD_BYTES + sum(min(text.length, limit) for text in (self.thinking, self.text))

    def to_json(self, problem: int) -> dict[str, Any]:
        """Return the trace for the page; `problem` is the index of its problem."""
        texts = {"thinking": self.thinking.to_json(), "text": self.text.to_json()}
        return {"problem": problem, "sample": self.key[1], **self.facts, **texts}


@dataclass(slots=True)
class Shown:
    """Input of the page's trace browser."""

    problems: list[dict[str, Any]] = field(default_factory=list)
    traces: list[dict[str, Any]] = field(default_factory=list)
    pairs: list[dict[str, Any]] = field(default_factory=list)
    """Instead of traces: problems with the traces of several sides (`distill.report.pairs`)."""
    num_traces: int = 0
    """Traces in the run, or pairs in both runs, shown or not."""
    num_cut: int = 0
    """Shown traces with a shortened text."""
    limit: int | None = None
    """Longest text shown, in characters; `None` if none is shortened."""

    def to_json(self) -> dict[str, Any]:
        """Return the data for the page."""
        return {"problems": self.problems, **({"pairs": self.pairs} if self.pairs else {"traces": self.traces})}


def filtered_card(outcome: Outcome, row: Mapping[str, Any], language_of: LanguageOf) -> Card:
    """Return the card of a filtered trace; `row` is its row in the filter's table."""
    verdict = outcome.verdict
    reasons = verdict["reasons"]
    if outcome.table == "kept":
        said, finish = "".join(m["content"] for m in row["completion"] if m["role"] == "assistant"), "stop"
    else:
        said, finish = row["text"] or "", row["finish_reason"] or ""
    split = split_reasoning(said)
    reasoning, content = split.reasoning, split.content
    if "unclosed_think" in reasons and split.state == "none":  # <think> was in the prompt, so all of it is thinking
        reasoning, content = content, ""
    facts: dict[str, Any] = {
        "outcome": outcome_of(reasons, verdict["correct"]),
        "correct": verdict["correct"],
        "reasons": reasons,
        "details": _details(verdict["details"]),
        "answer": shortened(verdict["extracted_answer"]),
        "graded_by": verdict["graded_by"],
        **_failed_test(verdict["details"]),
        "length": outcome.length,
        "teacher": _named(outcome.teacher),
        "finish": finish,
    }
    if row.get("error"):
        facts["details"].setdefault("error", printable(redact(row["error"]))[:MAX_DETAIL_CHARS])
    question = question_of(row["prompt"])
    problem = problem_entry(verdict["problem_id"], outcome.source, question, row["answer"])
    return _card((verdict["problem_id"], verdict["sample_index"]), facts, reasoning, content, problem, language_of)


def unfiltered_card(trace: Trace, problem: Problem | None) -> Card:
    """Return the card of a trace that has not been filtered yet."""
    facts: dict[str, Any] = {
        "outcome": "unfiltered",
        "correct": None,
        "reasons": [],
        "details": {"error": printable(redact(trace.error))[:MAX_DETAIL_CHARS]} if trace.error else {},
        "answer": None,
        "graded_by": "",
        "length": trace.num_completion_tokens or None,
        "teacher": _named(trace.teacher),
        "finish": trace.finish_reason,
    }
    question, source, answer = ("", "", None) if problem is None else (problem.question, problem.source, problem.answer)
    entry = problem_entry(trace.problem_id, source, question, answer)
    return _card(trace.key, facts, trace.reasoning, trace.content, entry, lambda _: None)


def answer_card(trace: Trace, verdict: Verdict, problem: Problem, is_hidden: bool = False) -> Card:
    """Return the card of an evaluation answer.

    Args:
        trace: the answer.
        verdict: on it.
        problem: the question.
        is_hidden: show the verdict and no text: neither question nor answer.
    """
    facts: dict[str, Any] = {
        "outcome": "ungraded" if verdict.correct is None else "right" if verdict.correct else "wrong",
        "correct": verdict.correct,
        "reasons": list(verdict.reasons),
        "details": _details(verdict.details),
        "answer": shortened(verdict.extracted_answer),
        "graded_by": "",
        **_failed_test(verdict.details),
        "length": trace.num_completion_tokens or None,
        "finish": trace.finish_reason,
    }
    if is_hidden:
        facts |= {"details": {}, "answer": None}
        facts.pop("failed", None)
        entry = {**problem_entry(problem.id, problem.source, "", None), "hidden": True}
        return Card(trace.key, facts, passage(""), passage(""), entry)
    entry = problem_entry(problem.id, problem.source, problem.question, problem.answer)
    return _card(trace.key, facts, trace.reasoning, trace.content or trace.error, entry, lambda _: None)


def _details(details: Mapping[str, str]) -> dict[str, str]:
    """Return what belongs to some reasons, as text for the page."""
    shown = {name: text for name, text in details.items() if name not in (FAILED_TEST, OUTPUTS)}
    return {name: printable(redact(text))[:MAX_DETAIL_CHARS] for name, text in shown.items()}


def _failed_test(details: Mapping[str, str]) -> dict[str, Any]:
    """Return the first test that a program failed as `failed`; nothing where there is none."""
    try:
        told = json.loads(details.get(FAILED_TEST, ""))
        failed = FailedTest.from_json(told)
        texts = {name: printable(redact(str(getattr(failed, name)))) for name in TEST_TEXTS}
        number = int(failed.number)
    except (ValueError, TypeError):  # no program, or changed by somebody
        return {}
    passed = printable(details.get(TESTS_PASSED, ""))[:MAX_DETAIL_CHARS]
    shown = {name: cut_in_middle(text, MAX_TEST_CHARS) for name, text in texts.items()}
    return {"failed": {"number": number, "passed": passed, **shown}}


def _card(
    key: SampleKey,
    facts: dict[str, Any],
    reasoning: str,
    content: str,
    problem: dict[str, Any],
    language_of: LanguageOf,
) -> Card:
    language = language_of(problem["question"]) if "mixed_language" in facts["reasons"] else None
    # Redacted first, so that the marks' positions are those in the shown text.
    thinking, text = (
        passage(part, marks_of(part, facts["reasons"], facts["finish"], language))
        for part in (redact(reasoning), redact(content))
    )
    return Card(key, facts, thinking, text, problem)


def outcome_of(reasons: Sequence[str], correct: bool | None) -> str:
    """Return `kept`, `dropped`, or `ungraded` if that was the only reason for the drop."""
    if not reasons:
        return "kept"
    return "ungraded" if correct is None and all(r.startswith("ungraded") for r in reasons) else "dropped"


def problem_entry(name: str, source: str, question: str, answer: str | None) -> dict[str, Any]:
    """Return a problem for the page; a long question is cut in the middle."""
    whole = passage(redact(question)).within(MAX_QUESTION_CHARS)
    return {
        "id": printable(name),
        "source": _named(source),
        "question": "".join(p if isinstance(p, str) else f" … {p:,} characters … " for p in whole.to_json()),
        "answer": shortened(answer),
    }


def _named(name: str) -> str:
    """Return the name of a source or a model without local folders."""
    return printable(scrub_text(name))[:MAX_NAME_CHARS]


def shortened(answer: str | None) -> str | None:
    """Return an answer, redacted and cut to `MAX_ANSWER_CHARS`."""
    if answer is None:
        return None
    answer = printable(redact(answer))
    return answer if len(answer) <= MAX_ANSWER_CHARS else f"{answer[:MAX_ANSWER_CHARS]}…"


def fit(cards: Sequence[Card], num_traces: int, budget: int) -> Shown:
    """Return as many cards as fit, with texts as long as possible.

    Args:
        cards: in order of preference.
        num_traces: in the run.
        budget: bytes on the page.
    """
    cards, limit = how_long(cards, budget, MIN_TRACES)
    found = Shown(num_traces=num_traces)
    places: dict[str, int] = {}
    left, taken = budget, []
    for card in cards:
        card = card.within(limit)
        is_new = card.problem["id"] not in places
        cost = num_encoded(card.to_json(0)) + (num_encoded(card.problem) if is_new else 0) + 2
        if cost > left:
            continue
        left -= cost
        taken.append(card)
        if is_new:
            places[card.problem["id"]] = len(places)
    taken.sort(key=lambda card: card.key)
    order = {name: place for place, name in enumerate(dict.fromkeys(card.problem["id"] for card in taken))}
    by_name = {card.problem["id"]: card.problem for card in taken}
    found.problems = [by_name[name] for name in order]
    found.traces = [card.to_json(order[card.problem["id"]]) for card in taken]
    found.num_cut = sum(card.thinking.is_cut or card.text.is_cut for card in taken)
    found.limit = limit if found.num_cut else None
    return found


class _Sized(Protocol):
    def num_bytes(self, limit: int) -> int: ...


Entry = TypeVar("Entry", bound=_Sized)


def how_long(entries: Sequence[Entry], budget: int, min_num: int) -> tuple[Sequence[Entry], int]:
    """Return (entries, characters per text) that approximately fit.

    Texts are shortened first, then entries are left out down to `min_num`, then texts are shortened further.
    """
    for limit in LIMITS:
        if sum(entry.num_bytes(limit) for entry in entries) <= budget:
            return entries, limit
    total, num = 0, 0
    for num, entry in enumerate(entries):  # noqa: B007 - used after the loop
        total += entry.num_bytes(LIMITS[-1])
        if total > budget:
            break
    entries = entries[: max(num, min_num)]
    for limit in (LIMITS[-1], *SMALL_LIMITS):
        if sum(entry.num_bytes(limit) for entry in entries) <= budget:
            return entries, limit
    return entries, SMALL_LIMITS[-1]


def num_encoded(value: Any) -> int:
    """Return the bytes that a value takes on the page."""
    return len(embedded_json(value).encode())
