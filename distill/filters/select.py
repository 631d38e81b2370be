"""Which of a problem's good traces go on: pure functions over verdicts."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence

from distill.recipe import Select
from distill.records import SampleKey, Trace


def duplicates(traces: Sequence[Trace]) -> set[SampleKey]:
    """The traces that say word for word what an earlier one (lower sample index) of the same problem says."""
    seen: set[tuple[str, str, str]] = set()
    found: set[SampleKey] = set()
    for trace in sorted(traces, key=lambda t: t.key):
        text = (trace.problem_id, " ".join(trace.reasoning.split()), " ".join(trace.content.split()))
        if text in seen:
            found.add(trace.key)
        seen.add(text)
    return found


def surplus(traces: Sequence[Trace], select: Select, seed: int) -> set[SampleKey]:
    """The traces beyond a problem's share, whatever the order they come in.

    Args:
        traces: good traces.
        select: how many a problem may keep, and which.
        seed: seed of the `random` policy.
    """
    if select.per_problem is None:
        return set()
    by_problem: dict[str, list[Trace]] = defaultdict(list)
    for trace in traces:
        by_problem[trace.problem_id].append(trace)

    def rank(trace: Trace) -> tuple[float, int]:
        if select.policy == "random":
            digest = hashlib.sha256(f"select/{seed}/{trace.problem_id}/{trace.sample_index}".encode()).digest()
            return (int.from_bytes(digest[:6]), trace.sample_index)
        length = trace.num_completion_tokens
        return (length if select.policy == "shortest" else -length, trace.sample_index)

    return {trace.key for group in by_problem.values() for trace in sorted(group, key=rank)[select.per_problem :]}
