"""The samples that are still to be requested, over all sets of problems.

Sets come one after another. An adaptive set asks for one sample of each problem at a time, in waves: the grades of a
wave decide whether there is a next one. While they are awaited, the samples of later sets are requested. A decision
depends on the grades of whole waves alone, never on the order in which they arrive, so that a resumed call decides as
the call before it did.
"""

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from distill.core.records import SampleKey
from distill.sampling.job import missing_keys
from distill.sampling.sets import Adaptive, IsNarrowEnough, SampleSet


@dataclass(slots=True)
class _Waves:
    """State of an adaptive set."""

    adaptive: Adaptive
    names: tuple[str, ...]
    samples_per_problem: int
    num_released: int
    """Samples of each problem that have been released for request."""
    held: dict[int, list[SampleKey]] = field(default_factory=dict)
    """Sample index -> the missing samples of that wave, which are requested only if it comes."""
    scores: dict[SampleKey, float | None] = field(default_factory=dict)
    """Scores of the samples that are drawn and graded; `None`: could not be graded."""
    num_settled: Counter[int] = field(default_factory=Counter)
    """Sample index -> samples in `scores`."""

    @property
    def is_settled(self) -> bool:
        return all(self.num_settled[index] == len(self.names) for index in range(self.num_released))

    @property
    def known_scores(self) -> list[list[float]]:
        """Return the scores in the released waves of each problem that has any, by wave."""
        waves = range(self.num_released)
        rows = ([self.scores[name, index] for index in waves] for name in self.names)
        known = ([score for score in row if score is not None] for row in rows)
        return [row for row in known if row]


class SampleQueue:
    """Samples that are still to be requested.

    Args:
        sets: what is wanted, in order (`sets.in_order`).
        done: samples that are stored and not requested again.
        stop_after_correct: a problem needs no more samples once this many are correct. Not with adaptive sets.
        is_narrow_enough: decides when an adaptive set ends; needed if there is one.
    """

    def __init__(
        self,
        sets: Sequence[SampleSet],
        done: set[SampleKey],
        stop_after_correct: int | None = None,
        is_narrow_enough: IsNarrowEnough | None = None,
    ) -> None:
        self._stop_after_correct, self._is_narrow_enough = stop_after_correct, is_narrow_enough
        self.set_of: dict[str, int] = {}
        """Problem -> the number of its set; the first one, if several share it."""
        self._ready: list[deque[SampleKey]] = []
        """Samples that may be requested, by set number."""
        self._waves: dict[int, _Waves] = {}
        """Set number -> state of an adaptive set."""
        self._num_waiting_of: Counter[str] = Counter()
        """Waiting samples by problem, including those held back."""
        self._num_right: Counter[str] = Counter()
        """Correct answers by problem."""
        self.num_needless = 0
        """Waiting samples of problems with enough correct answers."""
        self._needless: list[tuple[SampleKey, str]] = []
        most: dict[str, int] = {}
        for number, one in enumerate(sets):
            shared = {(name, i) for name in one.problems for i in range(most.get(name, 0))}
            keys = missing_keys(
                one.problems, one.samples_per_problem, done | shared if shared else done, stop_after_correct
            )
            self._num_waiting_of.update(name for name, _ in keys)
            for name in one.problems:
                self.set_of.setdefault(name, number)
                if len(sets) > 1:
                    most[name] = max(most.get(name, 0), one.samples_per_problem)
            if one.adaptive is not None:
                self._waves[number] = waves = _waves(one, one.adaptive, keys)
                keys = [key for key in keys if key[1] < waves.num_released]
            self._ready.append(deque(keys))

    def __len__(self) -> int:
        """Return the number of samples that have not been requested, and may still have to be."""
        return sum(self.num_waiting_by_set)

    def __iter__(self) -> Iterator[SampleKey]:
        """Yield these samples, set by set."""
        for number, ready in enumerate(self._ready):
            yield from ready
            if number in self._waves:
                for keys in self._waves[number].held.values():
                    yield from keys

    @property
    def num_waiting_by_set(self) -> list[int]:
        """Return the number of these samples for each set, by set number."""
        held = {number: sum(map(len, waves.held.values())) for number, waves in self._waves.items()}
        return [len(ready) + held.get(number, 0) for number, ready in enumerate(self._ready)]

    @property
    def open_problems(self) -> set[str]:
        """Return the problems whose earlier samples must be graded to know which further ones are needed."""
        if self._stop_after_correct is not None:
            return {name for name, _ in self}
        return {name for waves in self._waves.values() if waves.held for name in waves.names}

    @property
    def is_more_wanted(self) -> bool:
        """Return whether a sample has to be requested, now or perhaps later."""
        return any(not self._has_enough(name) for name, _ in self)

    def pop(self) -> SampleKey | None:
        """Return the next sample to request, or `None` if there is none yet. Needless ones are set aside."""
        for ready in self._ready:
            while ready:
                key = ready.popleft()
                self._num_waiting_of[key[0]] -= 1
                if not self._has_enough(key[0]):
                    return key
                self.num_needless -= 1
                self._needless.append(
                    (key, f"stop_after_correct: {self._stop_after_correct} samples are right already")
                )
        return None

    def take_needless(self) -> list[tuple[SampleKey, str]]:
        """Return the samples that were set aside since the last call, and why: they will not be requested."""
        taken, self._needless = self._needless, []
        return taken

    def settle(self, key: SampleKey, correct: bool | None) -> None:
        """Note the grade of a sample, of this or an earlier call; `None`: it has none and will not get one."""
        name, index = key
        if correct is True:
            had_enough = self._has_enough(name)
            self._num_right[name] += 1
            if self._has_enough(name) and not had_enough:
                self.num_needless += self._num_waiting_of[name]
        waves = self._waves.get(self.set_of.get(name, -1))
        if waves is None or index >= waves.samples_per_problem or key in waves.scores:
            return
        waves.scores[key] = None if correct is None else float(correct)
        waves.num_settled[index] += 1
        self._release(waves, self._ready[self.set_of[name]])

    def settle_ungraded(self, keys: Iterable[SampleKey]) -> None:
        """Note that stored samples have no grade, as far as none is known: the engine failed to answer, say."""
        for key in keys:
            if self.set_of.get(key[0], -1) in self._waves:
                self.settle(key, None)

    def _release(self, waves: _Waves, ready: deque[SampleKey]) -> None:
        """Once all released waves of a set are settled, release the next one or end the set."""
        while waves.held and waves.is_settled:
            assert self._is_narrow_enough is not None
            known = waves.known_scores
            if known and self._is_narrow_enough(known, waves.adaptive.width):
                num, width = waves.num_released, waves.adaptive.width
                why = f"adaptive: {num} samples a problem already give an interval narrower than {width:g}"
                self._needless += [(key, why) for keys in waves.held.values() for key in keys]
                waves.held.clear()
                return
            ready.extend(waves.held.pop(waves.num_released, ()))
            waves.num_released += 1

    def _has_enough(self, name: str) -> bool:
        return self._stop_after_correct is not None and self._num_right[name] >= self._stop_after_correct


def _waves(one: SampleSet, adaptive: Adaptive, keys: Iterable[SampleKey]) -> _Waves:
    """Return the state of an adaptive set of which these samples are missing."""
    first = min(max(1, adaptive.min_samples), one.samples_per_problem)
    waves = _Waves(adaptive, one.problems, one.samples_per_problem, first)
    for key in sorted(keys, key=lambda key: key[1]):  # stable: a wave keeps the order of the problems
        if key[1] >= first:
            waves.held.setdefault(key[1], []).append(key)
    return waves
