"""Traces as the browser of the page holds them, shortened until they fit.

Enters: rows of a filter's tables with their verdicts, or traces that no filter has seen. Leaves: `Shown`, JSON-ready:
problems, each once, and traces that point to them.

    {"problem": 0, "sample": 2, "outcome": "dropped", "correct": false, "reasons": ["wrong_answer"], "details": {},
     "answer": "7", "graded_by": "rule", "length": 431, "teacher": "org/model", "finish": "stop",
     "thinking": ["So …"], "text": ["The …"]}
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from distill.core.formatting import printable
from distill.core.records import Problem, SampleKey, Trace, Verdict
from distill.core.redaction import redact, scrub_text
from distill.core.thinking import split_reasoning
from distill.report.embed import embedded_json
from distill.report.outcomes import Outcome, question_of
from distill.report.passage import Passage, marks_of, passage

LIMITS = (100_000, 60_000, 40_000, 25_000, 16_000, 12_000, 9_000, 7_000, 5_000)
"""Characters of a thinking or an answer that are shown, tried in turn."""
SMALL_LIMITS = (3_500, 2_500, 1_500, 800, 400)
"""The same once the number of traces is down to `MIN_TRACES`."""
MIN_TRACES = 400
MAX_QUESTION_CHARS = 4_000
MAX_ANSWER_CHARS = 400
MAX_DETAIL_CHARS = 300
MAX_NAME_CHARS = 200
CARD_BYTES = 400
"""What a trace takes besides its texts, about."""

LanguageOf = Callable[[str], str | None]
"""From a question to the language that its traces should be in, ISO 639-1; `None`: any."""


@dataclass(frozen=True, slots=True)
class Card:
    """One trace to be shown."""

    key: SampleKey
    facts: dict[str, Any]
    """All but its texts, JSON-ready."""
    thinking: Passage
    text: Passage
    problem: dict[str, Any]

    def within(self, limit: int) -> "Card":
        """The same with no more than `limit` characters in each text."""
        return replace(self, thinking=self.thinking.within(limit), text=self.text.within(limit))

    def num_bytes(self, limit: int) -> int:
        """About what it takes on the page."""
        return CARD_BYTES + sum(min(text.length, limit) for text in (self.thinking, self.text))

    def to_json(self, problem: int) -> dict[str, Any]:
        """For the page; `problem` is the place of its problem."""
        texts = {"thinking": self.thinking.to_json(), "text": self.text.to_json()}
        return {"problem": problem, "sample": self.key[1], **self.facts, **texts}


@dataclass(slots=True)
class Shown:
    """What the browser of the page is given."""

    problems: list[dict[str, Any]] = field(default_factory=list)
    traces: list[dict[str, Any]] = field(default_factory=list)
    pairs: list[dict[str, Any]] = field(default_factory=list)
    """Instead of traces, on a page of two runs: a problem's traces in both (`distill.report.pairs`)."""
    num_traces: int = 0
    """In the run; or pairs in both."""
    num_cut: int = 0
    """Traces of which something is left out in the middle."""
    limit: int | None = None
    """Longest text shown, in characters, where any is cut."""

    def to_json(self) -> dict[str, Any]:
        """For the page."""
        return {"problems": self.problems, **({"pairs": self.pairs} if self.pairs else {"traces": self.traces})}


def filtered_card(outcome: Outcome, row: Mapping[str, Any], language_of: LanguageOf) -> Card:
    """The card of a trace that a filter has judged; `row` is its row in the filter's table."""
    verdict = outcome.verdict
    reasons = verdict["reasons"]
    if outcome.table == "kept":
        said, finish = "".join(m["content"] for m in row["completion"] if m["role"] == "assistant"), "stop"
    else:
        said, finish = row["text"] or "", row["finish_reason"] or ""
    split = split_reasoning(said)
    reasoning, content = split.reasoning, split.content
    if "unclosed_think" in reasons and split.state == "none":  # the prompt had opened the thought
        reasoning, content = content, ""
    facts: dict[str, Any] = {
        "outcome": outcome_of(reasons, verdict["correct"]),
        "correct": verdict["correct"],
        "reasons": reasons,
        "details": {name: printable(redact(text))[:MAX_DETAIL_CHARS] for name, text in verdict["details"].items()},
        "answer": shortened(verdict["extracted_answer"]),
        "graded_by": verdict["graded_by"],
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
    """The card of a trace that no filter has seen yet."""
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


def answer_card(trace: Trace, verdict: Verdict, problem: Problem) -> Card:
    """The card of an answer that was given in an evaluation."""
    facts: dict[str, Any] = {
        "outcome": "ungraded" if verdict.correct is None else "right" if verdict.correct else "wrong",
        "correct": verdict.correct,
        "reasons": list(verdict.reasons),
        "details": {},
        "answer": shortened(verdict.extracted_answer),
        "graded_by": "",
        "length": trace.num_completion_tokens or None,
        "finish": trace.finish_reason,
    }
    entry = problem_entry(problem.id, problem.source, problem.question, problem.answer)
    return _card(trace.key, facts, trace.reasoning, trace.content or trace.error, entry, lambda _: None)


def _card(
    key: SampleKey,
    facts: dict[str, Any],
    reasoning: str,
    content: str,
    problem: dict[str, Any],
    language_of: LanguageOf,
) -> Card:
    language = language_of(problem["question"]) if "mixed_language" in facts["reasons"] else None
    # Redacted first, so that marks are of the text that is shown.
    thinking, text = (
        passage(part, marks_of(part, facts["reasons"], facts["finish"], language))
        for part in (redact(reasoning), redact(content))
    )
    return Card(key, facts, thinking, text, problem)


def outcome_of(reasons: Sequence[str], correct: bool | None) -> str:
    """`kept`, `dropped`, or `ungraded`, which is not the same as wrong."""
    if not reasons:
        return "kept"
    return "ungraded" if correct is None and all(r.startswith("ungraded") for r in reasons) else "dropped"


def problem_entry(name: str, source: str, question: str, answer: str | None) -> dict[str, Any]:
    """A problem as the browser holds it; a long question is cut in its middle."""
    whole = passage(redact(question)).within(MAX_QUESTION_CHARS)
    return {
        "id": printable(name),
        "source": _named(source),
        "question": "".join(p if isinstance(p, str) else f" … {p:,} characters … " for p in whole.to_json()),
        "answer": shortened(answer),
    }


def _named(name: str) -> str:
    """A source or a model by its name, without the folders of this machine."""
    return printable(scrub_text(name))[:MAX_NAME_CHARS]


def shortened(answer: str | None) -> str | None:
    """An answer as long as answers are."""
    if answer is None:
        return None
    answer = printable(redact(answer))
    return answer if len(answer) <= MAX_ANSWER_CHARS else f"{answer[:MAX_ANSWER_CHARS]}…"


def fit(cards: Sequence[Card], num_traces: int, budget: int) -> Shown:
    """As many cards as fit, as long as they can be.

    Args:
        cards: the most telling first.
        num_traces: in the run.
        budget: bytes on the page.
    """
    cards, limit = _how_long(cards, budget)
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


def _how_long(cards: Sequence[Card], budget: int) -> tuple[Sequence[Card], int]:
    """(cards, characters of a text) that about fit: first texts are cut, then traces left out, then texts cut more."""
    for limit in LIMITS:
        if sum(card.num_bytes(limit) for card in cards) <= budget:
            return cards, limit
    total, num = 0, 0
    for num, card in enumerate(cards):  # noqa: B007 - how far it came is what is asked for
        total += card.num_bytes(LIMITS[-1])
        if total > budget:
            break
    cards = cards[: max(num, MIN_TRACES)]
    for limit in (LIMITS[-1], *SMALL_LIMITS):
        if sum(card.num_bytes(limit) for card in cards) <= budget:
            return cards, limit
    return cards, SMALL_LIMITS[-1]


def num_encoded(value: Any) -> int:
    """Bytes that a value takes on the page."""
    return len(embedded_json(value).encode())
