"""Selection among good traces by pass rate, share per problem, share per source and token budget; majority votes.

Candidates come without their texts. Their order does not matter: random choices are ranked by a hash of the seed and
the trace's identity. Example:

    over_limits([Candidate("a", 0, "gsm8k", 90), Candidate("b", 0, "gsm8k", 20)], Select(token_budget=30), seed=17)
    ["over_budget", None]
"""

import hashlib
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from distill.core.records import FinishReason, SampleKey
from distill.filters.dedup import as_matrix
from distill.grading.latex import MAX_ANSWER_CHARS
from distill.grading.math import normalise, same_answer
from distill.recipe.filter import Majority, Select


@dataclass(frozen=True, slots=True)
class Candidate:
    """What selection needs to know about a good trace.

    `num_tokens` counts its completion; `signature` is from `distill.filters.dedup`, only for the policy `diverse`.
    """

    problem_id: str
    sample_index: int
    source: str
    num_tokens: int
    signature: bytes | None = None

    @property
    def key(self) -> SampleKey:
        return (self.problem_id, self.sample_index)


def pass_rate(verdicts: Iterable[bool | None]) -> float | None:
    """Return the share of correct traces among a problem's graded ones, dropped or not; `None` if none was graded."""
    graded = [correct for correct in verdicts if correct is not None]
    return sum(graded) / len(graded) if graded else None


def in_band(rate: float | None, select: Select) -> bool:
    """Return whether a problem is neither too hard nor too easy; an unknown rate passes."""
    return rate is None or select.min_pass_rate <= rate <= select.max_pass_rate


def per_problem(candidates: Sequence[Candidate], select: Select, seed: int) -> set[SampleKey]:
    """Return the traces of one problem beyond its share.

    Args:
        candidates: the problem's good traces, in any order.
        select: how many to keep, and which: `shortest` and `longest` by tokens, `random` by a hash, `diverse` the
            shortest and then repeatedly the one farthest from its nearest chosen trace. Ties go to the lower sample
            index.
        seed: seed of the `random` policy.

    Raises:
        ValueError: a candidate has no signature under the policy `diverse`.
    """
    if select.per_problem is None or len(candidates) <= select.per_problem:
        return set()
    ranked = sorted(candidates, key=lambda c: _preference(c, select.policy, seed))
    if select.policy == "diverse":
        ranked = _spread(ranked, select.per_problem)
    return {candidate.key for candidate in ranked[select.per_problem :]}


def vote(finish_reason: FinishReason, extracted_answer: str | None) -> str | None:
    """Return a trace's final answer as its vote, if the trace ended on its own and the answer is usable."""
    if finish_reason != "stop" or extracted_answer is None or len(extracted_answer) > MAX_ANSWER_CHARS:
        return None
    return extracted_answer if normalise(extracted_answer) else None


def majority(votes: Iterable[str | None], same: Callable[[str, str], bool], config: Majority) -> str | None:
    """Return the answer that enough of a problem's traces agree on, in its most frequent wording, or `None`.

    Answers that are equal as normalised text or as numbers are grouped without `same`. It is called only for the rest,
    most frequent first, until one answer has enough votes.

    Args:
        votes: one per trace, from `vote`; `None` does not count.
        same: returns whether two answers mean the same; may be slow.
        config: how many votes are required, and the winner's share (more than half, so there are no ties).
    """
    groups = _by_form(votes)
    num_votes = num_open = sum(group.total() for group in groups)
    if num_votes < config.min_votes:
        return None
    tallies: list[Counter[str]] = []
    for group in groups:
        num_open -= group.total()
        home = _home(group, tallies, (same_answer, same))
        home.update(group)
        if home.total() / num_votes >= config.min_share:
            return _wording(home)
        if (max(tally.total() for tally in tallies) + num_open) / num_votes < config.min_share:
            break  # out of reach even with all remaining votes
    return None


def wordings(votes: Iterable[str | None]) -> dict[str, str]:
    """Return each answer's most frequent wording: that of all answers equal to it as normalised text or as numbers.

    Args:
        votes: one per trace; `None` does not count.
    """
    tallies: list[Counter[str]] = []
    for group in _by_form(votes):
        _home(group, tallies, (same_answer,)).update(group)
    return {answer: _wording(tally) for tally in tallies for answer in tally}


def over_limits(candidates: Iterable[Candidate], select: Select, seed: int) -> list[str | None]:
    """Return for each candidate of the whole set why it exceeds a limit, or `None`, in the given order.

    Candidates are drawn in the order of a seeded hash. Each source is cut to `select.per_source` traces; the rest are
    taken while they fit into `select.token_budget`, which is never exceeded. A trace that does not fit is skipped, so
    that one huge trace does not block the others; no skipped trace would still fit at the end.

    Takes about 100 bytes of memory per candidate; `candidates` may be a generator.
    """
    high, low, tokens, sources = array("Q"), array("Q"), array("q"), array("l")
    codes: dict[str, int] = {}
    for candidate in candidates:
        digest = _draw("limits", seed, candidate.key)
        high.append(int.from_bytes(digest[:8]))
        low.append(int.from_bytes(digest[8:16]))
        tokens.append(candidate.num_tokens)
        sources.append(codes.setdefault(candidate.source, len(codes)))
    reasons: list[str | None] = [None] * len(tokens)
    num_of_source = [0] * len(codes)
    tokens_left = select.token_budget
    for index in np.lexsort((tokens, low, high)).tolist():
        if select.per_source is not None and num_of_source[sources[index]] >= select.per_source:
            reasons[index] = "over_source_cap"
            continue
        num_of_source[sources[index]] += 1
        if tokens_left is not None and tokens[index] > tokens_left:
            reasons[index] = "over_budget"
        elif tokens_left is not None:
            tokens_left -= tokens[index]
    return reasons


def _preference(candidate: Candidate, policy: str, seed: int) -> tuple[bytes, int, int]:
    """Return the sort key of a problem's candidates; the first are kept."""
    length = -candidate.num_tokens if policy == "longest" else candidate.num_tokens
    drawn = _draw("select", seed, candidate.key) if policy == "random" else b""
    return drawn, length, candidate.sample_index


def _spread(ranked: Sequence[Candidate], num: int) -> list[Candidate]:
    """Put `num` diverse candidates first: the first one, then repeatedly the one farthest from all chosen."""
    missing = next((c.key for c in ranked if c.signature is None), None)
    if missing is not None:
        raise ValueError(f"trace {missing} has no signature: the policy diverse needs one for each candidate")
    matrix = as_matrix([c.signature for c in ranked if c.signature is not None])
    chosen: list[int] = []
    nearest = np.zeros(len(ranked))  # similarity of each to its nearest chosen one
    rest = list(range(len(ranked)))
    farthest = 0
    while True:
        chosen.append(farthest)
        rest.remove(farthest)
        if len(chosen) == num:
            return [ranked[i] for i in (*chosen, *rest)]
        nearest = np.maximum(nearest, (matrix == matrix[farthest]).mean(axis=1))
        farthest = min(rest, key=lambda i: (nearest[i], ranked[i].sample_index))


def _by_form(votes: Iterable[str | None]) -> list[Counter[str]]:
    """Return the votes by normalised text, most frequent first."""
    by_form: dict[str, Counter[str]] = defaultdict(Counter)
    for answer in votes:
        if answer is not None:
            by_form[normalise(answer)][answer] += 1
    return sorted(by_form.values(), key=lambda group: (-group.total(), _wording(group)))


def _home(group: Counter[str], tallies: list[Counter[str]], ways: Iterable[Callable[[str, str], bool]]) -> Counter[str]:
    """Return the tally of the answers that mean the same as this group's in one of the ways; a new one if none does."""
    answer = _wording(group)
    for equal in ways:
        for tally in tallies:
            if equal(_wording(tally), answer):
                return tally
    tallies.append(Counter())
    return tallies[-1]


def _wording(group: Counter[str]) -> str:
    """Return the most frequent wording; ties go to the shortest, then to the alphabetically first."""
    return min(group, key=lambda answer: (-group[answer], len(answer), answer))


def _draw(purpose: str, seed: int, key: SampleKey) -> bytes:
    """Return a hash of the seed and an identity to rank by, independent of the rest of the set."""
    return hashlib.sha256(f"{purpose}/{seed}/{key[0]}/{key[1]}".encode("utf-8", "surrogatepass")).digest()
