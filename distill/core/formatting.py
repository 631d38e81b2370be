"""Format JSON values for display: "1,200", "43.5%", "2 min 03 s".

A value that is missing or not a finite number becomes a dash, because the report of an unfinished run has many of them.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]

MISSING, MINUS, REPLACEMENT = "\N{EN DASH}", "\N{MINUS SIGN}", "\ufffd"

# Lone surrogates cannot be encoded, HTML allows no control characters but tab and line breaks, and directional marks
# would display a text in a different order from the one it was written in.
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufdd0-\ufdef\ufffe\uffff]"
)


def printable(text: str) -> str:
    """Replace characters that an HTML page cannot hold, or that would change the order of the text."""
    return _UNPRINTABLE.sub(REPLACEMENT, text)


def mapping(value: Any) -> Row:
    """Return the value if it is a mapping, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def number(value: Any) -> float | None:
    """Return the value as a finite number, or `None`."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # a whole number of more than 308 digits
        return None


def interval(value: Any) -> tuple[float, float] | None:
    """Return the value as a pair of finite numbers, or `None`."""
    limits = [number(limit) for limit in value] if isinstance(value, Sequence) else []
    return (limits[0], limits[1]) if len(limits) == 2 and None not in limits else None  # type: ignore[return-value]


def count(value: Any) -> str:
    """Format a whole number with thousands separators."""
    return MISSING if (n := number(value)) is None else f"{n:,.0f}"


def percent(value: Any) -> str:
    """Format a share in [0, 1] as a percentage."""
    return MISSING if (n := number(value)) is None else f"{100 * n:.1f}%"


def points(value: Any) -> str:
    """Format a difference of shares in percentage points, with its sign."""
    if (n := number(value)) is None:
        return MISSING
    return f"{100 * n:+.1f}".replace("-", MINUS) if round(100 * n, 1) else "0.0"


def percent_range(value: Any) -> str:
    """Format a pair of shares: "36.5 to 50.5%"."""
    return MISSING if (limits := interval(value)) is None else f"{100 * limits[0]:.1f} to {percent(limits[1])}"


def points_range(value: Any) -> str:
    """Format a pair of differences: "+36.5 to +50.5"."""
    return MISSING if (limits := interval(value)) is None else f"{points(limits[0])} to {points(limits[1])}"


def plain(value: Any) -> str:
    """Format a number with four significant digits: 21,000, 0.4125, 7.5e-5."""
    if (n := number(value)) is None:
        return MISSING
    if 0 < abs(n) < 1e-3:
        digits, _, power = f"{n:.3e}".partition("e")
        return f"{digits.rstrip('0').rstrip('.')}e{int(power)}"
    return f"{n:,.0f}" if 1e4 <= abs(n) < 1e15 else f"{n:.4g}"


def duration(value: Any) -> str:
    """Format seconds in their two largest units: `3.4 s`, `12 s`, `3 min 05 s`, `2 h 07 min`."""
    if (seconds := number(value)) is None:
        return MISSING
    if seconds < 59.5:
        return f"{seconds:.1f} s" if 0.05 <= seconds < 9.95 and seconds % 1 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def size(num_bytes: int) -> str:
    """Format a size to three significant digits, in B, kB, MB or GB."""
    for name, unit in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if num_bytes >= unit:
            return f"{num_bytes / unit:.3g} {name}" if num_bytes < 1000 * unit else f"{num_bytes / unit:,.0f} {name}"
    return f"{num_bytes} B"


def moment(value: Any) -> str:
    """Format an ISO 8601 time as "2026-11-24 18:40 UTC". Return any other text unchanged."""
    found = re.match(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d)[:\d.]*(?:\+00:00|Z)$", value) if isinstance(value, str) else None
    return f"{found[1]} {found[2]} UTC" if found else value if isinstance(value, str) and value else MISSING


def engine_name(value: Any) -> str:
    """Format `{"name": "vllm", "version": "0.31.0", …}` or a plain text as "vllm 0.31.0"."""
    parts = [value.get("name"), value.get("version")] if isinstance(value, Mapping) else [value]
    return " ".join(part for part in parts if isinstance(part, str)) or MISSING


def capitalised(text: str) -> str:
    """Capitalise the first letter of a text, and leave the others unchanged."""
    return text[:1].upper() + text[1:]


FILTERS = {
    "capfirst": capitalised,
    "count": count,
    "percent": percent,
    "points": points,
    "plain": plain,
    "duration": duration,
    "moment": moment,
    "percent_range": percent_range,
    "points_range": points_range,
    "engine": engine_name,
}
"""Template filters by name."""
