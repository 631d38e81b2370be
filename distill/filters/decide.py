"""Verdicts on the traces of one problem, from their facts and the recipe's thresholds.

Each verdict lists every reason. Limits over the whole set (caps, the token budget) are applied afterwards by
`distill.filters.select`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from distill.core.records import GradedBy, Problem, SampleKey, Verdict
from distill.filters.dedup import near_duplicates, similarity
from distill.filters.facts import Facts
from distill.filters.readability import Measures, unreadable
from distill.filters.select import Candidate, in_band, majority, pass_rate, per_problem, vote
from distill.grading.code.grader import CODE
from distill.grading.code.verdicts import OUTPUTS
from distill.grading.judge import combine
from distill.grading.math import settle
from distill.recipe.filter import FilterConfig, Majority, Select


@dataclass(frozen=True, slots=True)
class ProblemNotes:
    """What is known about a problem apart from its traces."""

    contamination: str = ""
    """Description of the evaluation item that it repeats, if any."""
    repeats: str = ""
    """Id of the earlier problem that it repeats, if any."""
    secrets: Mapping[int, str] = field(default_factory=dict)
    """Kind of the secret found in the question or the trace, by sample index."""
    judged: Mapping[SampleKey, bool | None] = field(default_factory=dict)
    """The judge's verdicts on the traces that it was asked about."""


def decide(
    problem: Problem, facts: Sequence[Facts], notes: ProblemNotes, config: FilterConfig, seed: int
) -> list[Verdict]:
    """Return one verdict per trace.

    Args:
        problem: the problem.
        facts: facts about all its traces, ordered by sample index.
        notes: further notes on the problem.
        config: thresholds.
        seed: seed for random choices.
    """
    verdicts = [_verdict(problem, one, notes, config) for one in _with_votes(problem, facts, config)]
    if config.duplicates is not None:
        verdicts = _drop_repeats(verdicts, facts, config.duplicates.traces)
    return _choose(verdicts, facts, config.select, problem.source, seed)


@dataclass(frozen=True, slots=True)
class _Graded:
    """A trace's facts, with its grade and who decided it."""

    facts: Facts
    correct: bool | None
    graded_by: GradedBy
    vote: str = ""


def _with_votes(problem: Problem, facts: Sequence[Facts], config: FilterConfig) -> list[_Graded]:
    """Return the rules' grades, or grades by the majority's answer if the expected one is missing or doubted."""
    graded = [_Graded(one, one.grade.correct if one.grade else None, "rule") for one in facts]
    voting = config.majority
    if voting is None or not _is_for_a_vote(problem, graded, voting):
        return graded
    is_code = problem.task == CODE
    vote_of = outputs_vote if is_code else answer_vote
    # A program that fails a test which tells its output has no say on the others, and stays wrong.
    is_open = [one.correct is None or voting.doubted for one in graded]
    votes = [vote_of(one) if may_vote else None for one, may_vote in zip(facts, is_open, strict=True)]
    same = str.__eq__ if is_code else _agree
    winner = majority(votes, same, voting)
    if winner is None:
        return graded
    num_votes = sum(answer is not None for answer in votes)
    num_same = sum(answer is not None and same(answer, winner) for answer in votes)
    said = f"{num_same} of {num_votes} {'give the same outputs' if is_code else f'say {winner[:80]}'}"
    compared = [_same_outputs(one, winner) if is_code else _same_answer(one, winner) for one in facts]
    return [
        replace(one, correct=same_as_winner, graded_by="majority", vote=said)
        if may_vote and one.facts.grade and one.facts.grade.extracted_answer
        else one
        for one, same_as_winner, may_vote in zip(graded, compared, is_open, strict=True)
    ]


def answer_vote(facts: Facts) -> str | None:
    """Return the final answer by which a trace votes."""
    return vote(facts.finish_reason, facts.grade.extracted_answer) if facts.grade else None


def outputs_vote(facts: Facts) -> str | None:
    """Return the hash of a program's outputs on the tests' inputs, by which its trace votes."""
    if facts.finish_reason != "stop" or facts.grade is None:
        return None
    return facts.grade.details.get(OUTPUTS)


def _same_answer(facts: Facts, winner: str) -> bool | None:
    answer = facts.grade.extracted_answer if facts.grade else None
    return None if answer is None else settle(answer, winner)


def _same_outputs(facts: Facts, winner: str) -> bool | None:
    """Return whether a program gives the winner's outputs; `None` if nothing is known of its own."""
    grade = facts.grade
    if grade is None or grade.reason == "ungraded_sandbox":
        return None
    return grade.details.get(OUTPUTS) == winner


def _is_for_a_vote(problem: Problem, graded: Sequence[_Graded], voting: Majority) -> bool:
    """Return whether to grade by majority vote.

    This is the case if there is no expected answer and no scorer that does without one, or if `majority.doubted` is set
    and no trace is correct.
    """
    if problem.task == CODE:
        # A program that crashes is wrong whatever the outputs are, and tells nothing about them.
        open_ones = [one.facts.grade for one in graded if one.correct is None]
        if any(grade and grade.details.get(OUTPUTS) for grade in open_ones) and not any(one.correct for one in graded):
            return True
    elif problem.answer is None:
        return all(one.correct is None for one in graded if one.facts.grade and one.facts.grade.extracted_answer)
    return voting.doubted and not any(one.correct for one in graded)


def _agree(one: str, other: str) -> bool:
    return settle(one, other) is True


def _verdict(problem: Problem, graded: _Graded, notes: ProblemNotes, config: FilterConfig) -> Verdict:
    """Return the verdict on one trace by itself, with all its reasons rather than only the first."""
    facts = graded.facts
    key = (facts.problem_id, facts.sample_index)
    details: dict[str, str] = {}
    if facts.finish_reason == "error":
        return Verdict(*key, None, None, ("error",), details={"error": facts.error} if facts.error else {})
    reasons: list[str] = []

    def drop(reason: str, detail: str = "") -> None:
        reasons.append(reason)
        if detail:
            details[reason] = detail

    correct, graded_by, reason = _grade(graded, notes, config)
    has_gold = problem.answer is not None or problem.tests is not None
    if not has_gold and config.unanswered == "keep":
        if reason == "ungraded_gold":
            reason = None
        elif reason == "no_answer" and not config.require_think:
            # Writing, a translation, a reply: nothing in it is a final answer, and none is wanted.
            correct, graded_by, reason = None, "", None
    if facts.grade is not None and graded.graded_by != "majority":
        details |= facts.grade.details
    if graded.vote:
        details["majority"] = graded.vote
    if reason:
        drop(reason)
    if correct is None and notes.judged.get(facts.key, False) is None:
        drop("ungraded_judge")  # beside the rule's own reason
    if facts.finish_reason == "length":
        drop("truncated")
    if facts.finish_reason == "loop":
        drop("loop")
    if facts.think == "unclosed":
        drop("unclosed_think")
    elif config.require_think and (facts.think == "none" or not facts.has_reasoning):
        drop("no_think")
    if facts.stray_mark and not (config.require_think and facts.think == "none"):
        drop("several_thinks", f"{facts.stray_mark} occurs inside thought or answer")
    if not facts.has_content and facts.think != "unclosed":
        drop("empty_answer")
    if notes.contamination:
        drop("contaminated", notes.contamination)
    if facts.sample_index in notes.secrets:
        drop("secret", notes.secrets[facts.sample_index])
    if notes.repeats:
        drop("duplicate_problem", f"of problem {notes.repeats}")
    if facts.num_tokens is not None:
        if config.min_tokens is not None and facts.num_tokens < config.min_tokens:
            drop("too_short", f"{facts.num_tokens} tokens, minimum {config.min_tokens}")
        if config.max_tokens is not None and facts.num_tokens > config.max_tokens:
            drop("too_long", f"{facts.num_tokens} tokens, maximum {config.max_tokens}")
    if facts.measures is None:
        drop("unmeasured")
    else:
        for reason in unreadable(facts.measures, config.readability):
            if reason != "code_block" or problem.task != CODE:  # programs are what is asked for
                drop(reason, measured(reason, facts.measures))
    answer = facts.grade.extracted_answer if facts.grade else None
    return Verdict(*key, correct, answer, tuple(reasons), graded_by, details, facts.num_tokens)


def _grade(graded: _Graded, notes: ProblemNotes, config: FilterConfig) -> tuple[bool | None, GradedBy, str | None]:
    """Return whether the trace is correct, who decided that, and a reason to drop it, if any."""
    grade = graded.facts.grade
    if graded.graded_by == "majority":
        if graded.correct is None:  # comparing it with the majority's answer would need a parser
            return None, "", "ungraded_gold"
        return graded.correct, "majority", None if graded.correct else "wrong_answer"
    correct, reason = (grade.correct, grade.reason) if grade else (None, "ungraded_crash")
    if config.judge is None or graded.facts.key not in notes.judged:
        return correct, "rule" if correct is not None else "", reason
    judged = notes.judged[graded.facts.key]
    if correct is None and judged is None:
        return None, "", reason  # `_verdict` adds "ungraded_judge"
    together, reason = combine(correct, judged, config.judge.role, reason)
    is_judges = correct is None and together is not None
    return together, "judge" if is_judges else "rule" if together is not None else "", reason


def is_for_the_judge(facts: Facts, role: str) -> bool:
    """Return whether to ask the judge about a trace.

    The trace must have ended on its own with an answer, and its grade must be one that the judge's role may change.
    """
    if facts.finish_reason != "stop" or not facts.has_content or facts.grade is None:
        return False
    correct = facts.grade.correct
    return (correct is None and role != "veto") or (correct is True and role != "fill")


def _drop_repeats(verdicts: list[Verdict], facts: Sequence[Facts], threshold: float | None) -> list[Verdict]:
    """Drop good traces that repeat an earlier good one."""
    verdicts = list(verdicts)
    first_with: dict[bytes, int] = {}
    good = []
    for place, (verdict, one) in enumerate(zip(verdicts, facts, strict=True)):
        if not verdict.kept:
            continue
        first = first_with.setdefault(one.text_hash, place)
        if first != place:
            verdicts[place] = with_reason(verdict, "duplicate", f"of trace {facts[first].sample_index}")
        elif one.signature is not None:
            good.append(place)
    if threshold is None or len(good) < 2:
        return verdicts
    found = [signature for place in good if (signature := facts[place].signature) is not None]
    for later, earlier in near_duplicates(found, threshold).items():
        likeness = similarity(found[later], found[earlier])
        detail = f"of trace {facts[good[earlier]].sample_index}, {likeness:.0%} similar"
        verdicts[good[later]] = with_reason(verdicts[good[later]], "near_duplicate", detail)
    return verdicts


def measured(reason: str, measures: Measures) -> str:
    """Return a description of the measurements behind a reason."""
    return {
        "mixed_language": f"{measures.language_share:.1%} {measures.language}, "
        f"{measures.num_foreign_words} foreign words",
        "repetition": f"the most repetitive window compresses {measures.compression_ratio:.1f} times and "
        f"{measures.repeated_share:.0%} of it is repeated; one piece occurs {measures.loop_repeats:,} times in a row; "
        f"the longest stretch of repeats has {measures.loop_chars:,} characters",
        "long_paragraph": f"{measures.longest_paragraph:,} characters",
        "code_block": f"{measures.num_code_blocks} found",
        "several_answers": ", ".join(measures.boxed_answers)[:200],
        "prompt_leak": f"repeats {measures.prompt_leak:.0%} of one instruction",
    }.get(reason, "")


def _choose(verdicts: list[Verdict], facts: Sequence[Facts], select: Select, source: str, seed: int) -> list[Verdict]:
    """Drop good traces if their problem's pass rate is outside the band, else those beyond `select.per_problem`."""
    rate = pass_rate(verdict.correct for verdict in verdicts)
    if rate is not None and not in_band(rate, select):
        detail = f"{rate:.0%} right, wanted {select.min_pass_rate:.0%} to {select.max_pass_rate:.0%}"
        return [with_reason(v, "pass_rate", detail) if v.kept else v for v in verdicts]
    good = [candidate(one, source) for one, verdict in zip(facts, verdicts, strict=True) if verdict.kept]
    beyond = per_problem(good, select, seed)
    return [with_reason(v, "not_selected") if v.key in beyond else v for v in verdicts]


def candidate(facts: Facts, source: str) -> Candidate:
    """Return what selection needs to know about a trace; its tokens are the student's where they were counted."""
    num_tokens = facts.num_completion_tokens if facts.num_tokens is None else facts.num_tokens
    return Candidate(facts.problem_id, facts.sample_index, source, num_tokens, facts.signature)


def with_reason(verdict: Verdict, reason: str, detail: str = "") -> Verdict:
    """Return the verdict with one more reason."""
    details = {**verdict.details, reason: detail} if detail else verdict.details
    return replace(verdict, reasons=(*verdict.reasons, reason), details=details)
