"""Amounts known within bounds, with the basis of the bounds, and their display.

Example: `Range(1_200, 8_000, "R1-style traces of 2,000 to 12,000 tokens, cut at max_tokens")`
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Range:
    """An amount between `low` and `high`, both included; `basis` says briefly why."""

    low: float
    high: float
    basis: str = ""

    @classmethod
    def exact(cls, value: float, basis: str = "") -> Self:
        """Create a range of a single, known value."""
        return cls(value, value, basis)

    @property
    def middle(self) -> float:
        return (self.low + self.high) / 2

    def times(self, low: float, high: float | None = None) -> "Range":
        """Multiply by a factor between `low` and `high` (left out: `low`)."""
        return replace(self, low=self.low * low, high=self.high * (low if high is None else high))

    def by(self, other: "Range") -> "Range":
        """Multiply by an independent range; the basis stays.

        The log widths add in quadrature, as two independent factors are unlikely to be extreme at once.
        """
        if min(self.low, other.low) <= 0:
            return self.times(other.low, other.high)
        centre = math.sqrt(self.low * self.high * other.low * other.high)
        width = math.hypot(math.log(self.high / self.low), math.log(other.high / other.low)) / 2
        return replace(self, low=centre / math.exp(width), high=centre * math.exp(width))

    def over(self, speed: "Range") -> "Range":
        """Divide by an independent speed, as in `by`; the basis stays."""
        return self.by(Range(1 / speed.high, 1 / speed.low))

    def plus(self, other: "Range") -> "Range":
        """Add a range; the basis stays."""
        return replace(self, low=self.low + other.low, high=self.high + other.high)

    def at_most(self, most: float) -> "Range":
        """Limit both bounds to `most`."""
        return replace(self, low=min(self.low, most), high=min(self.high, most))

    def because(self, basis: str) -> "Range":
        """Return the same bounds with another basis."""
        return replace(self, basis=basis)

    def to_json(self) -> dict[str, Any]:
        """Return `{"low", "high", "basis"}`, with numbers rounded to four digits."""
        return {"low": _rounded(self.low), "high": _rounded(self.high), "basis": self.basis}


def total(ranges: Iterable[Range]) -> Range:
    """Return the sum of all ranges."""
    added = Range(0.0, 0.0)
    for one in ranges:
        added = added.plus(one)
    return added


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def short(value: float) -> str:
    """Format a number in few characters: `0.42`, `3.1`, `620`, `12k`, `1.4M`."""
    if value < 0.005:
        return "0" if value == 0 else "<0.01"
    for limit, divisor, unit in ((1e3, 1, ""), (1e6, 1e3, "k"), (1e9, 1e6, "M"), (1e12, 1e9, "B")):
        if float(f"{value:.2g}") < limit:
            return _digits(value / divisor) + unit
    return _digits(value / 1e12) + "T"


def _digits(value: float) -> str:
    if value >= 9.95:
        return f"{float(f'{value:.2g}'):.0f}"
    return f"{value:.1f}" if value >= 0.995 else f"{value:.2g}"


def span(range_: Range, between: str = " to ") -> str:
    """Format a range: `1.2k to 8k`; one number if both ends look the same."""
    low, high = short(range_.low), short(range_.high)
    return low if low == high else f"{low}{between}{high}"


def number_of(range_: Range, one: str) -> str:
    """Format a range of things: `1 row`, `4 to 12 rows`, `2.5k to 8k traces`."""
    low, high = (f"{round(value)}" if value < 999.5 else short(value) for value in (range_.low, range_.high))
    number = low if low == high else f"{low} to {high}"
    return f"{number} {one}{'' if number == '1' else 's'}"


def duration(seconds: float) -> str:
    """Format a duration: `40 s`, `7 min`, `3.5 h`, `2 days`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5_400:
        return f"{seconds / 60:.0f} min"
    return f"{short(seconds / 3_600)} h" if seconds < 172_800 else f"{short(seconds / 86_400)} days"


def duration_span(range_: Range, between: str = " to ") -> str:
    """Format a range of durations: `40 s to 7 min`; the unit once if both have the same."""
    low, high = duration(range_.low), duration(range_.high)
    if low == high:
        return low
    (number, unit), (_, same) = low.split(" "), high.split(" ")
    return f"{number if unit == same else low}{between}{high}"
