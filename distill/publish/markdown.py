"""Markdown rendering with escaping.

Names of datasets, teachers and files come from outside and may hold Markdown, HTML or formulas. In a card's template
every value is therefore escaped unless it is `Safe`.
"""

import re
from collections.abc import Mapping
from importlib import resources
from typing import Any

from distill.core import formatting

UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff]+")
_SPECIAL = re.compile(r"[\\`*\[\]<>|~$&]|(?<!\w)_|_(?!\w)|(?<=:)//|(?<=www)\.")
_BLOCK = re.compile(r"[#+=-]|\d+(?=[.)])")
"""Beginnings of a line that would make it a heading, a list or a rule."""
_CODE = re.compile(r"[\w ./:@+=,()\[\]*<>-]+")


class Safe(str):
    """Text that is already Markdown."""

    __slots__ = ()


def one_line(value: Any) -> str:
    """Return a value as one line of printable text."""
    return " ".join(UNPRINTABLE.sub(" ", str(value)).split())


def escape(value: Any) -> Safe:
    """Return a value as plain text for a line or a table cell."""
    # HTML entities rather than backslashes: they work in formulas and tables too.
    return value if isinstance(value, Safe) else Safe(_SPECIAL.sub(_entities, one_line(value)))


def paragraph(value: Any) -> Safe:
    """Return a value as a paragraph of plain text."""
    text = one_line(value)
    found = _BLOCK.match(text)
    # Escaped as a whole: escaping only what follows the mark would strip the space after it.
    return Safe(_BLOCK.sub(_entities, escape(text), count=1)) if found else escape(text)


def _entities(found: re.Match[str]) -> str:
    return "".join(f"&#{ord(char)};" for char in found[0])


def code(value: Any) -> Safe:
    """Return a name as inline code if its characters allow that, else as plain text."""
    text = one_line(value)
    return Safe(f"`{text}`") if _CODE.fullmatch(text) else escape(text)


def render(template: str, values: Mapping[str, Any]) -> str:
    """Render one of this package's card templates."""
    import jinja2

    environment = jinja2.Environment(
        autoescape=False,  # noqa: S701 - `finalize` escapes every value, for Markdown
        undefined=jinja2.StrictUndefined,
        finalize=escape,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    own = {"code": code, "words": Safe, "paragraph": paragraph, "s": plural}
    environment.filters |= {**formatting.FILTERS, **own, "in_percent": in_percent, "interval": interval}
    text = (resources.files("distill") / "publish" / template).read_text(encoding="utf-8")
    return environment.from_string(text).render(values)


def front_matter(metadata: Mapping[str, Any]) -> str:
    """Return the YAML block at the top of a card, without empty values."""
    import yaml

    kept = {key: value for key, value in metadata.items() if value not in (None, "", [], {})}
    text: str = yaml.safe_dump(_one_lined(kept), sort_keys=False, allow_unicode=True, width=10_000)
    return f"---\n{text}---\n"


def _one_lined(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {one_line(key): _one_lined(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_one_lined(inner) for inner in value]
    return one_line(value) if isinstance(value, str) else value


def plural(value: int) -> str:
    """Return the plural ending of a counted noun."""
    return "" if value == 1 else "s"


def in_percent(value: float | None) -> str:
    """Format a share in percent without the sign: 0.25 is `25.0`; `None` is a dash."""
    return "–" if value is None else f"{100 * value:.1f}"


def interval(limits: tuple[float, float]) -> str:
    """Format an interval of shares in percent: (0.37, 0.51) is `37.0 to 51.0`."""
    return f"{100 * limits[0]:.1f} to {100 * limits[1]:.1f}"
