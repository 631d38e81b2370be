"""Sets of problems that are sampled alike: one job may hold several, each with its own k and sampling.

A set as it stands in `SamplingJob.sets`; `adaptive` may be left out:

    {"problems": ["9f2c…", "07ab…"], "samples_per_problem": 64, "sampling": {"max_tokens": 32768, …},
     "adaptive": {"width": 0.05, "min_samples": 4}}
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from distill.errors import UserError
from distill.recipe.sampling import Sampling

IsNarrowEnough = Callable[[Sequence[Sequence[float]], float], bool]
"""Function from the scores (0 to 1) of each problem that has any, and a width, to whether the interval of their mean is
that narrow."""


@dataclass(frozen=True, slots=True)
class Adaptive:
    """When to stop sampling a set."""

    width: float
    """Width of the interval at which its score is known well enough, as a share (0.05: 5 points)."""
    min_samples: int = 4
    """Samples of each problem that are drawn in any case."""


@dataclass(frozen=True, slots=True)
class SampleSet:
    """Problems that are sampled alike."""

    problems: tuple[str, ...]
    """Their ids, in order."""
    samples_per_problem: int
    sampling: Sampling
    adaptive: Adaptive | None = None

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """Return the set that a row of `SamplingJob.sets` describes."""
        adaptive = row.get("adaptive")
        return cls(
            tuple(dict.fromkeys(row["problems"])),
            row["samples_per_problem"],
            Sampling.model_validate(row["sampling"]),
            None if adaptive is None else Adaptive(**adaptive),
        )


def in_order(sets: Iterable[SampleSet]) -> list[SampleSet]:
    """Return the sets, the one with the longest possible answers first; of equal ones the one with fewer problems.

    Long answers that were begun last would keep the engine waiting at the end, with few samples in flight.

    Raises:
        UserError: a problem is in two sets that sample it differently. Its samples have one identity, so only sets with
            the same sampling, none of them adaptive, can share it.
    """
    ordered = sorted(sets, key=lambda one: (-one.sampling.max_tokens, len(one.problems)))
    first: dict[str, SampleSet] = {}
    for one in ordered:
        for name in one.problems:
            other = first.setdefault(name, one)
            if other is not one and (other.sampling != one.sampling or other.adaptive or one.adaptive):
                raise UserError(
                    f"problem {name} is in two sets that sample it differently. Give both the same sampling and "
                    "leave out adaptive, or take the problem out of one."
                )
    return ordered


def num_wanted(sets: Iterable[SampleSet]) -> int:
    """Return the number of samples of all sets together, of adaptive ones the most. A shared sample counts once."""
    most: dict[str, int] = {}
    for one in sets:
        for name in one.problems:
            most[name] = max(most.get(name, 0), one.samples_per_problem)
    return sum(most.values())
