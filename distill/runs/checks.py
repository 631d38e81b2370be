"""Findings of the doctor, and probes that run in parallel, each with a timeout.

Example of a finding: Check("torch", "missing", "cannot be imported: …", "pip install 'torch>=2.13,<2.14'")
"""

import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from distill.core.redaction import redact

Status = Literal["ok", "warning", "missing"]
OK: Status = "ok"
WARNING: Status = "warning"
MISSING: Status = "missing"

_ESCAPE = re.compile(r"\x1b(?:\[[0-9;?]*[A-Za-z]|\][^\x07\x1b]*(?:\x07|\x1b\\))")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]+")
MAX_CHARS = 400


@dataclass(frozen=True, slots=True)
class Check:
    """One finding."""

    name: str
    status: Status
    said: str
    """The finding in one line."""
    mend: str = ""
    """Command that fixes it; empty if there is nothing to fix or no command for it."""
    download_gib: float = 0.0
    """Size of what a run would download, in GiB."""

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "status": self.status, "said": self.said, "mend": self.mend or None}


@dataclass(frozen=True, slots=True)
class Probe:
    """A function that makes checks, with its timeout in seconds."""

    name: str
    look: Callable[[], Sequence[Check]]
    within_s: float
    group: str = ""


@dataclass(slots=True)
class _Outcome:
    checks: Sequence[Check] | None = field(default=None)


def look_at_all(probes: Sequence[Probe]) -> list[list[Check]]:
    """Run all probes at the same time; one that times out or raises yields a warning.

    Returns:
        The checks of each probe, in the probes' order.
    """
    outcomes = [_Outcome() for _ in probes]
    threads = [
        # Daemon threads, so that a hanging probe does not keep the process alive.
        threading.Thread(target=_run, args=(probe, outcome), name=f"doctor-{probe.name}", daemon=True)
        for probe, outcome in zip(probes, outcomes, strict=True)
    ]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    found = []
    for probe, outcome, thread in zip(probes, outcomes, threads, strict=True):
        thread.join(max(0.0, started + probe.within_s - time.monotonic()))
        late = Check(probe.name, WARNING, f"no answer within {probe.within_s:g} s: not checked")
        found.append([late] if outcome.checks is None else list(outcome.checks))
    return found


def _run(probe: Probe, outcome: _Outcome) -> None:
    try:
        outcome.checks = probe.look()
    except Exception as error:
        outcome.checks = [Check(probe.name, WARNING, f"the check failed: {type(error).__name__}: {line_of(error)}")]


def line_of(said: object) -> str:
    """Return the first line of a foreign text, safe for the terminal and without secrets."""
    text = next((line for line in str(said).strip().splitlines() if line.strip()), "")
    # Escapes are removed first: one just before a key would keep `redact` from recognising the key's beginning.
    text = redact(_UNPRINTABLE.sub(" ", _ESCAPE.sub("", text)).strip())
    return text if len(text) <= MAX_CHARS else f"{text[: MAX_CHARS - 1]}…"
