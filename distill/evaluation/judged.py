"""Answers that a judge model decides: short answers, and games against a baseline's answer.

The judge sees the text after the thinking alone. Its words stand in the verdict's details:

    {"correct": true, "details": {"judged": "correct"}}                        short answers
    {"correct": true, "details": {"game": "second", "swapped": "first", "score": "1.0"}}       win-rate
    {"correct": false, "details": {"game": "A>B", "swapped": "A=B", "score": "0.25"}}          arena
    {"correct": null, "reasons": ["ungraded_judge"], "details": {"judged": "nonsense"}}        no verdict
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from distill.core.records import GradedBy, Problem, SampleKey, Trace, Verdict
from distill.evaluation.measured_sets import BASELINE, KINDS, MeasuredSet, template_of
from distill.grading.comparisons import Template, comparison_messages, mean_preference, short_answer_messages
from distill.recipe.filter import Judge
from distill.sampling.judging import Answer, Asked, ask, comparison_reading
from distill.scores.arena import outcome
from distill.storage.fact_cache import FactCache

SIDES = ("game", "swapped")
"""Keys of the two games in a verdict's details: the baseline first, then the model first."""
JUDGED = "judged"
NO_VERDICT = "ungraded_judge"
"""Reason of an answer that the judge gave no verdict on."""
SCORE = "score"
"""Key in a verdict's details: the share of credit, from 0 to 1, of an answer that is not simply right or wrong."""
_LOST = {"preference": ("first", "second"), "arena": ("A>>B", "B>>A")}
"""What an empty answer gets without asking: both games are lost."""


def judge_answers(
    one: MeasuredSet,
    traces: Sequence[Trace],
    problems: Mapping[str, Problem],
    judge: Judge,
    facts: Path,
    retry_errors: bool = False,
) -> dict[SampleKey, Verdict]:
    """Return the judge's verdict on each answer.

    A judge that writes nonsense, refuses or fails gives no verdict: the answer is ungraded, and the details say why.

    Args:
        one: the set that the answers belong to.
        traces: the answers.
        problems: by id; those of games hold the baseline's answer in their metadata.
        judge: the model and its servers.
        facts: path of the cache of verdicts.
        retry_errors: ask again where the judge gave no verdict before.

    Raises:
        ModelError, StageError: the judge cannot be reached, or most of its answers were errors.
    """
    failed = {t.key: _verdict(t, None, {}, ("error",)) for t in traces if t.finish_reason == "error"}
    asked = [trace for trace in traces if trace.key not in failed]
    template, is_short = template_of(one.judge_template), one.metric == "short-answers"
    questions = _short(asked, problems, judge, template) if is_short else _games(one, asked, problems, judge, template)
    with FactCache(facts, write=True) as cache:
        reading = comparison_reading(KINDS[one.metric], one.judge_labels or None)  # type: ignore[arg-type]  # checked
        found = dict(ask(questions, judge, cache, reading, retry_errors=retry_errors))
    verdicts = {
        trace.key: _short_verdict(trace, found) if is_short else _game_verdict(one, trace, found) for trace in asked
    }
    return {**failed, **verdicts}


def _side(key: SampleKey, number: int) -> SampleKey:
    """Return the identity of one of the questions about a sample."""
    return key[0], 2 * key[1] + number


def _short(
    traces: Sequence[Trace], problems: Mapping[str, Problem], judge: Judge, template: Template | None
) -> Iterator[Asked[str]]:
    for trace in traces:
        problem = problems[trace.problem_id]
        messages = short_answer_messages(
            problem.question, problem.answer or "", trace.content, template, judge.max_chars
        )
        yield Asked(_side(trace.key, 0), messages, None if trace.content.strip() else "not_attempted")


def _games(
    one: MeasuredSet, traces: Sequence[Trace], problems: Mapping[str, Problem], judge: Judge, template: Template | None
) -> Iterator[Asked[str]]:
    kind = KINDS[one.metric]
    assert kind != "short_answer"
    for trace in traces:
        problem = problems[trace.problem_id]
        for number in range(len(SIDES)):
            messages = comparison_messages(
                kind,
                problem.question,
                str(problem.metadata[BASELINE]),
                trace.content,
                is_swapped=bool(number),
                template=template,
                max_chars=judge.max_chars,
            )
            yield Asked(_side(trace.key, number), messages, None if trace.content.strip() else _LOST[kind][number])


def _short_verdict(trace: Trace, found: Mapping[SampleKey, Answer[str]]) -> Verdict:
    answer = found[_side(trace.key, 0)]
    label = answer.verdict
    reasons = (NO_VERDICT,) if label is None else () if label == "correct" else ("wrong_answer",)
    return _verdict(
        trace, None if label is None else label == "correct", {JUDGED: str(label or answer.missing)}, reasons
    )


def _game_verdict(one: MeasuredSet, trace: Trace, found: Mapping[SampleKey, Answer[str]]) -> Verdict:
    answers = [found[_side(trace.key, number)] for number in range(len(SIDES))]
    details = {side: str(answer.verdict or answer.missing) for side, answer in zip(SIDES, answers, strict=True)}
    game, swapped = (answer.verdict for answer in answers)
    if game is None or swapped is None:
        return _verdict(trace, None, details, (NO_VERDICT,))
    score = _score(one.metric, game, swapped)
    return _verdict(trace, score > 0.5, {**details, SCORE: repr(score)}, () if score > 0.5 else ("wrong_answer",))


def _score(metric: str, game: str, swapped: str) -> float:
    """Return the share of the two games that the model won."""
    if metric == "win-rate":
        preference = mean_preference(game, swapped)  # type: ignore[arg-type]  # labels of `read_preference`
        assert preference is not None
        return preference - 1.0
    games = [outcome(game, False), outcome(swapped, True)]  # type: ignore[arg-type]  # labels of `read_arena`
    return sum(won * weight for won, weight in games) / sum(weight for _, weight in games)


def _verdict(trace: Trace, correct: bool | None, details: dict[str, str], reasons: tuple[str, ...]) -> Verdict:
    by: GradedBy = "judge" if correct is not None else ""
    return Verdict(trace.problem_id, trace.sample_index, correct, None, reasons, by, details)
