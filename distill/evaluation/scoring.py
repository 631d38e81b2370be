"""From answers and verdicts to scores. Pure.

A sample that failed, was not drawn, or could not be graded has no score: it is left out, counted, and the score is
shown with what it could be (`bounds`).
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from distill.core.records import Problem, Verdict
from distill.evaluation.answers import Answers
from distill.evaluation.figures import figures_of, flags_of
from distill.evaluation.groups import group_scores
from distill.evaluation.judged import SCORE
from distill.evaluation.measured_sets import EXTRACTION, INTERVAL, MeasuredSet
from distill.filters.select import vote, wordings
from distill.grading.code.verdicts import OUTPUTS, TESTS_PASSED
from distill.results.eval import AtK, BudgetPoint, Contamination, Difference, EvalResult, Protocol, Variance
from distill.scores.at_k import curves
from distill.scores.bounds import score_bounds
from distill.scores.budget import budget_scores, tokens_per_right
from distill.scores.intervals import mean_interval, mean_score, paired_difference
from distill.scores.sequence import is_narrow_enough, score_sequence
from distill.scores.variance import split_variance, what_narrows

MAX_ITEMS_SHOWN = 100


def sample_score(verdict: Verdict) -> float | None:
    """Return the share of credit of an answer, from 0 to 1; `None` if it has no verdict."""
    if verdict.correct is None:
        return None
    said = verdict.details.get(SCORE)
    return float(verdict.correct) if said is None else float(said)


def scores_of(verdicts: Sequence[Verdict]) -> dict[str, list[float]]:
    """Return the scores of each problem's graded samples; problems without any are left out."""
    found: dict[str, list[float]] = defaultdict(list)
    for verdict in verdicts:
        score = sample_score(verdict)
        if score is not None:
            found[verdict.problem_id].append(score)
    return dict(found)


def score_answers(answers: Answers, wanted: Mapping[str, int]) -> EvalResult:
    """Return the score of one model on some problems.

    Args:
        answers: its answers to these problems.
        wanted: problem -> number of samples that were asked for.
    """
    scores = scores_of(answers.verdicts)
    values = [scores[name] for name in sorted(scores)]
    given = [trace for trace in answers.traces if trace.finish_reason != "error"]
    num_failed = len(answers.traces) - len(given)
    num_missing = sum(wanted.values()) - len(given)
    num_ungraded = sum(v.correct is None for v in answers.verdicts) - num_failed
    per_right = tokens_per_right(_spent(answers))
    more: dict[str, Any] = {} if not per_right else {"tokens_per_right": per_right}
    if num_missing or num_ungraded:
        found = score_bounds([scores.get(name, []) for name in wanted], list(wanted.values()))
        more["bounds"] = (found.low, found.high)
    return EvalResult(
        model=answers.model,
        num_problems=len(wanted),
        samples_per_problem=max(wanted.values(), default=0),
        pass_at_1=mean_score(values) if values else None,
        interval_95=mean_interval(values) if values else (0.0, 1.0),
        truncated_share=sum(t.finish_reason == "length" for t in given) / max(1, len(given)),
        num_ungraded=num_ungraded,
        num_missing=num_missing,
        mean_completion_tokens=sum(t.num_completion_tokens for t in given) / max(1, len(given)),
        **more,
    )


def overall_score(sets: Sequence[MeasuredSet], answers: Answers) -> EvalResult:
    """Return the score over some benchmarks together, each problem once."""
    wanted = {name: num for one in sets for name, num in wanted_of(one, answers).items()}
    return score_answers(answers.of(wanted), wanted)


def wanted_of(one: MeasuredSet, answers: Answers) -> dict[str, int]:
    """Return the number of samples of each problem that a score rests on.

    It is k; of an adaptive set whose score is known well enough, the number of waves that were drawn. What a run that
    was killed between two waves would have drawn, nobody knows: up to k.
    """
    num = one.samples_per_problem
    if one.adaptive is not None:
        drawn = Counter(trace.problem_id for trace in answers.traces)
        # Every problem gets as many waves as the others: one with fewer has samples missing.
        num_waves = max((drawn[name] for name in one.problems), default=0)
        scores = scores_of(answers.of(one.problems).verdicts)
        is_enough = num_waves >= min(one.adaptive["min_samples"], num)
        if scores and is_enough and is_narrow_enough(list(scores.values()), one.adaptive["width"]):
            num = num_waves
    return dict.fromkeys(one.problems, num)


def score_set(
    one: MeasuredSet,
    answers: Answers,
    problems: Mapping[str, Problem],
    seed: int,
    hit: Mapping[str, str] | None = None,
) -> EvalResult:
    """Return one model's score on one benchmark, with everything that belongs to it.

    Args:
        one: the benchmark.
        answers: the model's answers to it.
        problems: by id.
        seed: seed of what is resampled.
        hit: problems that are among the training rows; `None`: the model was not trained here.
    """
    wanted = wanted_of(one, answers)
    result = score_answers(answers, wanted)
    scores = scores_of(answers.verdicts)
    values = [scores[name] for name in sorted(scores)]
    more: dict[str, Any] = {}
    if one.adaptive is not None:
        drawn = [len(own) for own in scores.values()] or [0]
        more |= {"samples_per_problem": max(wanted.values()), "samples_range": (min(drawn), max(drawn))}
        if values:
            more["sequence_95"] = score_sequence(values)
    if len(values) > 1:
        found = split_variance(values)
        more["variance"] = Variance(
            between_problems=found.between_problems, between_samples=found.between_samples, narrows=what_narrows(values)
        )
    if one.metric in ("pass@1", "instructions", "short-answers"):
        more["at_k"] = _at_k(one, answers)
        if one.show:
            more["shown"] = _shown(one, more["at_k"])
        more["budget"] = _budget(one, answers)
    groups = group_scores(one.problems, scores, problems)
    if groups.scores:
        more |= {"groups": groups.scores, "group_problems": groups.num_problems}
    pairs = zip(answers.traces, answers.verdicts, strict=True)
    graded = [(trace, verdict) for trace, verdict in pairs if trace.finish_reason != "error"]
    if figures := figures_of(one, graded, problems, wanted, seed):
        more["figures"] = figures
    if flags := flags_of(one, graded, problems):
        more["flags"] = flags
    if hit is not None:
        more["contamination"] = _contamination(one, scores, hit)
    return result.model_copy(update=more)


def difference(before: tuple[Answers, EvalResult], after: tuple[Answers, EvalResult]) -> Difference:
    """Return how two models differ on the problems that both have graded answers to, paired by problem.

    Args:
        before: the one model's answers, with their score.
        after: the other's, to the same problems.
    """
    found = [scores_of(answers.verdicts) for answers, _ in (before, after)]
    shared = found[0].keys() & found[1].keys()
    more: dict[str, Any] = {"num_problems": len(shared)}
    if not (before[1].is_complete and after[1].is_complete):
        (low, high), (new_low, new_high) = (_limits(score) for _, score in (before, after))
        more["bounds"] = (new_low - high, new_high - low)
    if not shared:
        return Difference(pass_at_1=None, interval_95=(-1.0, 1.0), num_gained=0, num_lost=0, **more)
    gain = paired_difference(*({name: scores[name] for name in shared} for scores in found))
    return Difference(
        pass_at_1=gain.mean_gain,
        interval_95=gain.interval_95,
        num_gained=gain.num_gained,
        num_lost=gain.num_lost,
        **more,
    )


def _limits(score: EvalResult) -> tuple[float, float]:
    """Return what a score could be: itself if it is complete."""
    if score.bounds is not None:
        return score.bounds
    return (0.0, 1.0) if score.pass_at_1 is None else (score.pass_at_1, score.pass_at_1)


def common_protocol(sets: Sequence[MeasuredSet], engine: Mapping[str, Any] | None) -> Protocol:
    """Return what the protocols of all benchmarks have in common."""
    protocols = [one.protocol.to_json() for one in sets]
    keys = ("named", "samples_per_problem", "temperature", "top_p", "top_k", "max_tokens")
    same = {key: protocols[0][key] for key in keys if all(key in p and p[key] == protocols[0][key] for p in protocols)}
    said: dict[str, Any] = {"engine": f"{engine['name']} {engine['version']}"} if engine else {}
    ways = {one.get("extraction", EXTRACTION) for one in protocols}
    extraction = ways.pop() if len(ways) == 1 else EXTRACTION
    return Protocol(**{"samples_per_problem": 0, **same}, **said, extraction=extraction, interval=INTERVAL)


def _at_k(one: MeasuredSet, answers: Answers) -> list[AtK]:
    """Return pass@k and cons@k; without a vote where answers are free texts."""
    votes: dict[str, list[tuple[str | None, bool]]] = defaultdict(list)
    for verdict in answers.verdicts:
        if verdict.correct is not None:
            # Programs vote by their outputs; one that did not finish has none, and votes for itself alone.
            is_program = TESTS_PASSED in verdict.details
            said = verdict.details.get(OUTPUTS) if is_program else verdict.extracted_answer
            votes[verdict.problem_id].append((said, verdict.correct))
    if not votes:
        return []
    can_vote = one.metric == "pass@1"
    if can_vote:
        for samples in votes.values():  # wrong answers that are written in several ways are one answer
            same = wordings(vote("stop", answer) for answer, is_right in samples if not is_right)
            samples[:] = [(same.get(answer or "", answer), is_right) for answer, is_right in samples]
    return [
        AtK(
            k=at.k,
            pass_at=at.pass_at_k,
            pass_interval=at.pass_interval_95,
            cons_at=at.cons_at_k if can_vote else None,
            cons_interval=at.cons_interval_95 if can_vote else None,
            cons_is_exact=at.is_exact,
        )
        for at in curves([votes[name] for name in sorted(votes)], also=[int(f.partition("@")[2]) for f in one.show])
    ]


def _shown(one: MeasuredSet, points: Sequence[AtK]) -> dict[str, float]:
    """Return the figures that the recipe asks for; those that missing samples rule out are left out."""
    by_name = {f"pass@{at.k}": at.pass_at for at in points}
    by_name |= {f"cons@{at.k}": at.cons_at for at in points if at.cons_at is not None}
    return {name: by_name[name] for name in one.show if name in by_name}


def _budget(one: MeasuredSet, answers: Answers) -> list[BudgetPoint]:
    spent = _spent(answers)
    if not any(num for samples in spent for num, _ in samples):
        return []  # answers made elsewhere, whose tokens nobody counted
    return [
        BudgetPoint(max_tokens=at.budget_tokens, pass_at_1=at.score, interval_95=at.interval_95, cut_share=at.cut_share)
        for at in budget_scores(spent, one.sampling["max_tokens"])
    ]


def _spent(answers: Answers) -> list[list[tuple[int, bool]]]:
    """Return the tokens of each problem's graded samples, with whether they are right."""
    by_problem: dict[str, list[tuple[int, bool]]] = defaultdict(list)
    for trace, verdict in zip(answers.traces, answers.verdicts, strict=True):
        if verdict.correct is not None:
            by_problem[trace.problem_id].append((trace.num_completion_tokens, verdict.correct))
    return [by_problem[name] for name in sorted(by_problem)]


def _contamination(one: MeasuredSet, scores: Mapping[str, Sequence[float]], hit: Mapping[str, str]) -> Contamination:
    items = [name for name in one.problems if name in hit]
    clean = [scores[name] for name in sorted(scores) if name not in hit]
    return Contamination(
        num_hit=len(items),
        pass_at_1=mean_score(clean) if clean else None,
        interval_95=mean_interval(clean) if clean else None,
        items=[] if one.canary else items[:MAX_ITEMS_SHOWN],
    )
