"""Stored answers by other harnesses' rules, and the answers on which extractors, or rule and judge, disagree."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from distill.core.plurals import counted
from distill.core.progress import note
from distill.core.records import Problem, SampleKey, Trace
from distill.errors import UserError
from distill.evaluation.measured_sets import MeasuredSet
from distill.evaluation.replay import StoredAnswers
from distill.grading import Grade
from distill.grading.audit import Audit, Audited, audit, audit_answer
from distill.grading.cached import grade_traces
from distill.grading.harnesses import EXTRACTORS, HARNESSES, checked, grade_all_as
from distill.grading.pool import GradingPool
from distill.recipe.filter import Judge
from distill.sampling.judging import Question, ask_judge
from distill.scores.extraction_gap import ExtractionGap, explain_gap
from distill.storage.fact_cache import FactCache

MAX_SHOWN_CHARS = 60
_WORD = {True: "right", False: "wrong", None: "ungraded"}


@dataclass(frozen=True, slots=True)
class RulesGap:
    """One model's score on one benchmark by our rules and by another harness's."""

    benchmark: str
    model: str
    harness: str
    notes: tuple[str, ...]
    gap: ExtractionGap

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class AuditOfSet:
    """The disputed answers of one model on one benchmark."""

    benchmark: str
    model: str
    audit: Audit
    disputed: Sequence[Audited]
    shows_text: bool
    """Whether the benchmark's text may be shown."""

    def to_json(self) -> dict[str, Any]:
        answers = [asdict(one) for one in self.disputed]
        if not self.shows_text:
            for grade in (grade for answer in answers for grade in answer["said"].values()):
                grade["extracted_answer"] = None
        return {"benchmark": self.benchmark, "model": self.model, **asdict(self.audit), "disputed": answers}


def compare_rules(stored: StoredAnswers, harness: str) -> list[RulesGap]:
    """Grade stored answers by another harness's rules too, and say which part of a gap is extraction.

    Raises:
        UserError: there is no such harness, or it has no rules for any of the benchmarks.
    """
    if harness not in HARNESSES:
        raise UserError(f"eval: --as {harness}: no such harness. There are {', '.join(HARNESSES)}.")
    found = []
    for one, model, answers in _ruled(stored):
        if {problem.task for problem, _ in answers} <= HARNESSES[harness].rules.keys():
            ours = _our_grades(stored, answers)
            theirs = _grades_as(stored, harness, answers)
            rows = zip((trace.key for _, trace in answers), ours, theirs, strict=True)
            found.append(RulesGap(one.name, model, harness, HARNESSES[harness].notes, explain_gap(rows)))
    if not found:
        raise UserError(
            f"eval: --as {harness}: it grades {', '.join(HARNESSES[harness].rules)}, and none of the benchmarks is of "
            "these tasks."
        )
    return found


def audit_stored(stored: StoredAnswers, judge: Judge | None = None) -> list[AuditOfSet]:
    """Compare what all extractors, and a judge if there is one, say of each stored answer that rules grade.

    Raises:
        ModelError, StageError: the judge cannot be reached, or most of its answers were errors.
    """
    found = []
    for one, model, answers in _ruled(stored):
        tasks = {problem.task for problem, _ in answers}
        names = [name for name, harness in EXTRACTORS.items() if tasks <= harness.rules.keys()]
        ours = _our_grades(stored, answers)
        others = {name: _grades_as(stored, name, answers) for name in names}
        judged = {} if judge is None else _judged(stored, judge, answers)
        audited = [
            audit_answer(
                trace.key, ours[place], {name: grades[place] for name, grades in others.items()}, judged.get(trace.key)
            )
            for place, (_, trace) in enumerate(answers)
        ]
        disputed = [one for one in audited if one.disputes]
        found.append(AuditOfSet(one.name, model, audit(audited), disputed, not one.canary))
    return found


def gaps_text(found: Sequence[RulesGap]) -> str:
    """Return gaps in words, and what to know of the harness once."""
    notes = list(dict.fromkeys(note for one in found for note in one.notes))
    return "\n\n".join(["\n".join(_gap_lines(one)) for one in found] + ["\n".join(notes)] * bool(notes))


def _gap_lines(found: RulesGap) -> list[str]:
    gap = found.gap
    head = f"{found.benchmark}, {found.model}: {gap.num_graded:,} of {gap.num_answers:,} answers graded by both"
    if gap.ours is None or gap.theirs is None:
        return [head]
    lines = [
        head,
        f"  ours {gap.ours:.1f}, by the rules of {found.harness} {gap.theirs:.1f}: {gap.theirs - gap.ours:+.1f} points",
    ]
    if gap.num_missing:
        lines.append(
            f"  their rules find no answer in {gap.num_missing:,}: those asked for in another form, such as "
            "\\boxed{}, are not answers to them"
        )
    for name, part in (("extraction", gap.extraction), ("comparison", gap.comparison)):
        examples = ", ".join(f"{key[0]}/{key[1]}" for key in part.examples[:3])
        told = f"; for example {examples}" if examples else ""
        lines.append(
            f"  {name}: {part.num_answers:,} answers differ, {part.points:+.1f} points "
            f"({part.num_gained} right by their rules alone, {part.num_lost} by ours alone{told})"
        )
    return lines


def audit_lines(found: AuditOfSet, num_shown: int) -> list[str]:
    """Return an audit in words, with the first disputed answers."""
    counts = ", ".join(f"{num:,} by {name}" for name, num in found.audit.num_by_dispute.items() if num)
    lines = [
        f"{found.benchmark}, {found.model}: {len(found.disputed):,} of {found.audit.num_answers:,} answers disputed"
        + (f" ({counts})" if counts else "")
    ]
    if found.audit.low is not None and found.audit.high is not None:
        score = found.audit.num_right / max(1, found.audit.num_answers - found.audit.num_ungraded)
        lines.append(
            f"  score {score:.1%}; if all disputes went one way or the other, {found.audit.low:.1%} to "
            f"{found.audit.high:.1%}"
        )
    # First those on which the score depends.
    by_weight = sorted(found.disputed, key=lambda one: len(one.verdicts) == 1)
    for one in by_weight[:num_shown]:
        lines.append(f"  {one.key[0]}/{one.key[1]} ({', '.join(one.disputes)})")
        saying: dict[str, list[str]] = {}
        for name, grade in one.said.items():
            saying.setdefault(_said(grade, found.shows_text), []).append(name)
        lines += [f"    {said}: {', '.join(names)}" for said, names in saying.items()]
        if one.judge is not None:
            lines.append(f"    {_WORD[one.judge]}: the judge")
    if len(found.disputed) > num_shown:
        lines.append(f"  … and {len(found.disputed) - num_shown:,} more (--json gives all)")
    return lines


def _said(grade: Grade, shows_text: bool) -> str:
    verdict = _WORD[grade.correct]
    if grade.extracted_answer is None:
        return "no answer"
    text = " ".join(grade.extracted_answer.split())
    text = text if len(text) <= MAX_SHOWN_CHARS else f"{text[: MAX_SHOWN_CHARS - 1]}…"
    return f"{verdict} {text!r}" if shows_text else verdict


def _ruled(stored: StoredAnswers) -> Iterator[tuple[MeasuredSet, str, list[tuple[Problem, Trace]]]]:
    """Yield benchmark, model and the answers that did not fail, of the benchmarks that rules grade."""
    problems = stored.evaluation.problems
    for one in stored.evaluation.sets:
        if one.metric != "pass@1":
            continue
        names = set(one.problems)
        for role, traces in stored.traces.items():
            theirs = [trace for trace in traces if trace.problem_id in names and trace.finish_reason != "error"]
            if theirs:
                yield one, stored.name_of(role), [(problems[trace.problem_id], trace) for trace in theirs]


def _our_grades(stored: StoredAnswers, answers: Sequence[tuple[Problem, Trace]]) -> list[Grade]:
    evaluation = stored.evaluation
    limit_s, sandbox = evaluation.config.grade_timeout_s, evaluation.sandbox
    return list(grade_traces(answers, evaluation.facts, limit_s, last_number=True, sandbox=sandbox))


def _grades_as(stored: StoredAnswers, harness: str, answers: Sequence[tuple[Problem, Trace]]) -> list[Grade]:
    for task in {problem.task for problem, _ in answers}:
        checked(harness, task)
    with GradingPool(timeout_s=stored.evaluation.config.grade_timeout_s) as pool:
        return list(grade_all_as(harness, [(problem, trace.text) for problem, trace in answers], pool))


def _judged(
    stored: StoredAnswers, judge: Judge, answers: Sequence[tuple[Problem, Trace]]
) -> dict[SampleKey, bool | None]:
    note(f"The judge {judge.model} is asked about {counted(len(answers), 'answer')}.")
    questions = [Question(trace.key, problem, trace.content) for problem, trace in answers]
    with FactCache(stored.evaluation.facts, write=True) as cache:
        return dict(ask_judge(questions, judge, cache))
