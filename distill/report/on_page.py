"""The traces that an existing `report.html` shows, and links to them, such as `report.html#trace=9f2c%2F0`."""

import contextlib
import json
import re
from pathlib import Path
from urllib.parse import quote

from distill.core.records import SampleKey

_PAYLOAD = re.compile(r'<script type="application/json" id="payload">(.*?)</script>', re.DOTALL)


def traces_on(page: Path) -> set[SampleKey] | None:
    """Return the traces that a page shows, or `None` if there is no page or distill did not write it."""
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        found = _PAYLOAD.search(page.read_text(encoding="utf-8"))
        if found is not None:
            payload = json.loads(found[1] or "{}")
            names = [problem["id"] for problem in payload.get("problems", ())]
            return {(names[trace["problem"]], trace["sample"]) for trace in payload.get("traces", ())}
    return None


def address_of(page: Path, key: SampleKey) -> str:
    """Return the link to a trace on a page."""
    return f"{page}#trace={quote(f'{key[0]}/{key[1]}', safe='', errors='replace')}"
