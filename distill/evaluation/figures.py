"""What a suite's metric tells besides its score: IFEval's four accuracies, SimpleQA's F-score, win rates, ratings.

Shares from 0 to 1; ratings as Codeforces' are.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

from distill.core.records import Problem, Trace, Verdict
from distill.evaluation.judged import JUDGED, SCORE, SIDES
from distill.evaluation.measured_sets import BASELINE, MeasuredSet
from distill.grading.code.verdicts import TESTS_PASSED, WEAKER_TESTS, share_passed
from distill.grading.instructions import InstructionResult, check_problem
from distill.grading.pool import GradingPool
from distill.results.eval import WEAK, Figure
from distill.scores.arena import Battle, arena_scores
from distill.scores.constant_answers import constant_answers
from distill.scores.contest_rating import Attempted, Contest, contest_rating
from distill.scores.followed import Followed, instruction_figures
from distill.scores.shares import pooled_share
from distill.scores.short_answers import short_answer_figures
from distill.scores.style import style_of
from distill.scores.win_rate import Comparison, win_rate
from distill.sources.contests import ContestFile, load_contests

CHECK_S = 10.0
"""Time limit of checking one answer's instructions, in seconds."""
Z_95 = 1.96
Graded = list[tuple[Trace, Verdict]]
Figures = dict[str, Figure | None]


def figures_of(
    one: MeasuredSet, graded: Graded, problems: Mapping[str, Problem], wanted: Mapping[str, int], seed: int
) -> dict[str, Figure]:
    """Return the further figures of a benchmark's metric; those that cannot be told are left out.

    Args:
        one: the benchmark.
        graded: the answers that did not fail, with their verdicts.
        problems: by id.
        wanted: problem -> number of samples that were asked for; those that are not graded widen the bounds.
        seed: seed of what is resampled.
    """
    makers: dict[str, Callable[[MeasuredSet, Graded, Mapping[str, Problem], Mapping[str, int], int], Figures]] = {
        "short-answers": _short_answers,
        "win-rate": _win_rate,
        "arena": _arena,
        "instructions": _instructions,
    }
    maker = makers.get(one.metric)
    missing = dict(wanted)
    for trace, _ in graded:
        missing[trace.problem_id] -= 1
    found = maker(one, graded, problems, missing, seed) if maker and graded else {}
    found |= _of_programs(graded, problems)
    if one.contests is not None and graded:
        found |= _rating(one, graded, problems, seed)
    return {key: figure for key, figure in found.items() if figure is not None}


def flags_of(one: MeasuredSet, graded: Graded, problems: Mapping[str, Problem]) -> list[str]:
    """Return why there is no rating, and warnings about answers that may be gaming a judge: one text for all."""
    if one.contests is not None and graded:
        return _no_rating(one, graded, problems)
    if one.metric not in ("win-rate", "arena"):  # short answers repeat no word of their question
        return []
    drawn: dict[int, dict[str, str]] = defaultdict(dict)  # sample -> problem -> answer: the questions must differ
    for trace, _ in graded:
        drawn[trace.sample_index][trace.problem_id] = trace.content
    found = (constant_answers([problems[name].question for name in own], list(own.values())) for own in drawn.values())
    return next(filter(None, found), [])


def _short_answers(
    one: MeasuredSet, graded: Graded, problems: Mapping[str, Problem], missing: Mapping[str, int], seed: int
) -> Figures:
    by_problem: dict[str, list[Any]] = {name: [None] * num for name, num in missing.items()}
    for _, verdict in graded:
        by_problem[verdict.problem_id].append(verdict.details[JUDGED] if verdict.correct is not None else None)
    return {**short_answer_figures(by_problem)}


def _win_rate(
    one: MeasuredSet, graded: Graded, problems: Mapping[str, Problem], missing: Mapping[str, int], seed: int
) -> Figures:
    rows = []
    wins: dict[str, list[float | None]] = {name: [None] * num for name, num in missing.items()}
    for trace, verdict in graded:
        said = verdict.details.get(SCORE)
        baseline = str(problems[trace.problem_id].metadata[BASELINE])
        preference = None if said is None else 1.0 + float(said)
        rows.append(Comparison(trace.problem_id, len(baseline), len(trace.content), preference))
        wins[trace.problem_id].append(None if said is None else float(said))
    found = win_rate(rows, seed)
    controlled = None
    if found.length_controlled is not None:
        more: dict[str, Any] = {}
        if found.length_controlled_error is not None:
            half = Z_95 * found.length_controlled_error
            more["interval_95"] = _shares(found.length_controlled - half, found.length_controlled + half)
        # The lengths of answers that are missing are not known, and so what they would change is not.
        if found.length_controlled_bounds is not None and None in [x for several in wins.values() for x in several]:
            more["bounds"] = (0.0, 1.0) if any(missing.values()) else _shares(*found.length_controlled_bounds)
        controlled = Figure(value=found.length_controlled / 100, **more)
    return {
        "win_rate": pooled_share(wins),
        "win_rate_error": _figure(found.standard_error),
        "length_controlled": controlled,
        "length_controlled_error": _figure(found.length_controlled_error),
    }


def _arena(
    one: MeasuredSet, graded: Graded, problems: Mapping[str, Problem], missing: Mapping[str, int], seed: int
) -> Figures:
    battles = [Battle(name, "model", None, None) for name, num in missing.items() for _ in range(num)]
    for trace, verdict in graded:
        game, swapped = (_label(verdict, side) for side in SIDES)
        baseline = style_of(str(problems[trace.problem_id].metadata[BASELINE]))
        battles.append(Battle(trace.problem_id, "model", game, swapped, baseline, style_of(trace.content)))
    plain = arena_scores(battles, seed)["model"]
    is_whole = all(battle.game and battle.swapped for battle in battles)
    more = {} if is_whole else {"bounds": _shares(*plain.bounds)}
    found: Figures = {"arena_score": _figure(plain.score, plain.interval_95, **more)}
    if one.style_control:
        controlled = arena_scores(battles, seed, controls_style=True)["model"]
        found["style_controlled"] = _figure(controlled.score, controlled.interval_95)
    return found


def _figure(percent: float | None, interval: tuple[float, float] | None = None, **more: Any) -> Figure | None:
    """Return a figure that is given in percent."""
    if percent is None:
        return None
    return Figure(value=percent / 100, **({"interval_95": _shares(*interval)} if interval else {}), **more)


def _shares(low: float, high: float) -> tuple[float, float]:
    return max(low / 100, 0.0), min(high / 100, 1.0)


def _of_programs(graded: Graded, problems: Mapping[str, Problem]) -> Figures:
    """Return the share of tests that programs pass, and the number of problems whose tests are weak; empty for others.

    A wrong answer that tells of no test holds no program, which passes none. A test is weak if it compares in the
    program's own process, which could change what it compares.
    """
    shares: dict[str, list[float]] = defaultdict(list)
    weak = set()
    for _, verdict in graded:
        share = share_passed(verdict.details.get(TESTS_PASSED, ""))
        problem = problems.get(verdict.problem_id)
        if TESTS_PASSED not in verdict.details and verdict.correct is False and problem and problem.tests:
            share = 0.0
        if share is not None:
            shares[verdict.problem_id].append(share)
        if WEAKER_TESTS in verdict.details:
            weak.add(verdict.problem_id)
    if not shares:
        return {}
    means = [sum(own) / len(own) for own in shares.values()]
    return {"tests_passed": Figure(value=sum(means) / len(means)), WEAK: Figure(value=len(weak))}


def _rating(one: MeasuredSet, graded: Graded, problems: Mapping[str, Problem], seed: int) -> Figures:
    """Return the model's rating in the rounds of which it was asked a problem; without any, nothing.

    A round with a problem of which no answer could be graded is left out: it would count as not solved.
    """
    assert one.contests is not None
    known = load_contests(one.contests)
    attempted = _attempted(one, graded, problems, known)
    whole = _whole(attempted)
    if not whole:
        return {}
    found = contest_rating([Contest(name, known.rounds[name], whole[name]) for name in sorted(whole)], seed)
    counts = {
        "rating_ahead_of": found.ahead_of,
        "rating_contests": found.num_contests,
        "rating_contests_left_out": len(attempted) - len(whole),
        "rating_problems_not_asked": sum(len(known.points[name]) - len(whole[name]) for name in whole),
        "rating_first_share": found.first_share,
        "rating_last_share": found.last_share,
    }
    return {
        "rating_by_rank": _rated(found.rank_rating, found.rank_interval_95),
        "rating_zero_delta": _rated(found.zero_delta, found.zero_delta_interval_95),
        **{key: Figure(value=value) for key, value in counts.items()},
    }


def _attempted(
    one: MeasuredSet, graded: Graded, problems: Mapping[str, Problem], known: ContestFile
) -> dict[str, list[Attempted]]:
    """Return the problems that are of a round, with their graded answers, by round."""
    samples: dict[str, list[bool]] = {name: [] for name in one.problems}
    for trace, verdict in graded:
        if verdict.correct is not None:
            samples[trace.problem_id].append(verdict.correct)
    found: dict[str, list[Attempted]] = defaultdict(list)
    for name in one.problems:
        contest, letter = _place(problems[name])
        if letter in known.points.get(contest, {}):
            found[contest].append(Attempted(known.points[contest][letter], samples[name]))
    return found


def _place(problem: Problem) -> tuple[str, str]:
    """Return the round of a problem, and which of its problems it is."""
    return str(problem.metadata.get("contest")), str(problem.metadata.get("index"))


def _whole(attempted: Mapping[str, list[Attempted]]) -> dict[str, list[Attempted]]:
    return {name: found for name, found in attempted.items() if all(len(problem.is_right) for problem in found)}


def _no_rating(one: MeasuredSet, graded: Graded, problems: Mapping[str, Problem]) -> list[str]:
    """Return why there is no rating; empty if there is one."""
    assert one.contests is not None
    known = load_contests(one.contests)
    attempted = _attempted(one, graded, problems, known)
    if _whole(attempted):
        return []
    if attempted:
        return ["No rating: each rated round has a problem of which no answer could be graded."]
    contest, letters = next(iter(known.points.items()))
    named = (_place(problems[one.problems[0]]), (contest, next(iter(letters))))
    own, theirs = (" and ".join(f"{name!r:.40}" for name in names) for names in named)
    why = f"by `contest` and `index` in their metadata ({own} in the first one; {theirs} among the rounds)"
    return [f"No rating: none of the problems is one of a rated round, {why}."]


def _rated(value: float, interval: tuple[float, float] | None) -> Figure:
    return Figure(value=value) if interval is None else Figure(value=value, interval_95=interval)


def _label(verdict: Verdict, side: str) -> Any:
    """Return a game's verdict, or `None` where the details tell why there is none."""
    said = verdict.details.get(side)
    return said if said is not None and ("=" in said or ">" in said) else None


def _instructions(
    one: MeasuredSet, graded: Graded, problems: Mapping[str, Problem], missing: Mapping[str, int], seed: int
) -> Figures:
    with GradingPool(timeout_s=CHECK_S) as pool:
        tasks = [(problems[trace.problem_id], trace.content) for trace, _ in graded]
        results = [found if isinstance(found, list) else None for found in pool.map(check_problem, tasks)]
    by_problem: dict[str, list[Followed]] = defaultdict(list)
    for (trace, _), found in zip(graded, results, strict=True):
        by_problem[trace.problem_id].append(_not_known(problems[trace.problem_id]) if found is None else found)
    for name, num in missing.items():
        by_problem[name] += [_not_known(problems[name])] * num
    return {**instruction_figures(by_problem)}


def _not_known(problem: Problem) -> Followed:
    ids = problem.metadata.get("instruction_ids")
    return [InstructionResult(str(id_), None, None) for id_ in (ids if isinstance(ids, list | tuple) else ())]
