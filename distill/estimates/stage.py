"""The estimate of one stage."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from distill.core.plurals import counted
from distill.estimates.machine import Machine
from distill.estimates.prices import Prices
from distill.estimates.quantities import Range, total

TOKENS, SECONDS, GPU_HOURS, CPU_HOURS, COST, MEMORY, DISK = (
    "tokens", "seconds", "gpu_hours", "cpu_hours", "cost", "memory_gib", "disk_gib",
)  # fmt: skip
QUANTITIES = (TOKENS, SECONDS, GPU_HOURS, CPU_HOURS, COST, MEMORY, DISK)
"""`tokens`: sampled or trained on; `cpu_hours`: core-hours; `memory_gib`: of each GPU, or of the machine on CPU;
`disk_gib`: at its peak."""
ADDS_UP = (TOKENS, SECONDS, GPU_HOURS, CPU_HOURS, COST)
"""Quantities that are summed over the stages of a run; for the others see `plan.totals`."""

NEW, DONE, PARTLY, CHANGED, DEPENDS = "new", "done", "partly", "changed", "depends"
"""`partly`: is resumed or extended; `changed`: would be refused; `depends`: on the result of an earlier stage."""


@dataclass(frozen=True, slots=True)
class StageProgress:
    """Progress of a stage."""

    state: str
    why: str = ""
    remaining: float = 1.0
    """Rough share of the work that is left."""
    seconds: float | None = None
    """Duration of a finished stage."""

    def to_json(self) -> dict[str, Any]:
        return {"state": self.state, "why": self.why, "remaining": round(self.remaining, 4), "seconds": self.seconds}


TEACHER, STUDENT, MODEL = "teacher", "student", "model"


@dataclass(frozen=True, slots=True)
class StageEstimate:
    """Quantities of a whole stage, and its progress."""

    stage: str
    quantities: dict[str, Range]
    """The known ones of `QUANTITIES`."""
    notes: tuple[str, ...] = ()
    """What could not be estimated, and why."""
    num_gpus: int = 0
    """GPUs that it uses."""
    samples: str = ""
    """What it samples: `teacher`, `student`, or the `model` of those that are measured."""
    trains: bool = False
    no_layout: str = ""
    """Why its training has no layout on the machine."""
    to_fit: str = ""
    """What would make it need less memory, if that is one thing."""
    standing: StageProgress = field(default_factory=lambda: StageProgress(NEW))
    set_in: str = ""
    """The section of the recipe with its settings, if that is not called as the stage."""

    @property
    def section(self) -> str:
        """Return the section of the recipe with its settings."""
        return self.set_in or self.stage

    @property
    def left(self) -> dict[str, Range]:
        """Return what is still to be spent: nothing for a finished stage."""
        if self.standing.state == DONE:
            return {}
        share = self.standing.remaining
        return {name: r.times(share) if name in ADDS_UP else r for name, r in self.quantities.items()}

    def is_unknown(self, quantity: str) -> bool:
        """Return whether the stage takes an unknown amount of a quantity."""
        if self.standing.state == DONE or quantity in self.quantities:
            return False
        if quantity == COST:
            takes = GPU_HOURS in self.quantities or CPU_HOURS in self.quantities or self.samples == TEACHER
            return takes or self.is_unknown(SECONDS)
        if quantity in (GPU_HOURS, CPU_HOURS):
            return self.is_unknown(SECONDS)
        return quantity == SECONDS or (quantity == MEMORY and self.num_gpus > 0)

    def at(self, standing: StageProgress) -> "StageEstimate":
        """Return the estimate with another standing."""
        return replace(self, standing=standing)


def one_after_another(each: Sequence[Mapping[str, Range]]) -> dict[str, Range]:
    """Return the quantities of several pieces of work together: sums, and the largest memory.

    A quantity that is not known of one of them is not known of all.
    """
    found: dict[str, Range] = {}
    for name in QUANTITIES:
        known = [quantities[name] for quantities in each if name in quantities]
        if not known or len(known) < len(each):
            continue
        basis = "; ".join(dict.fromkeys(one.basis for one in known if one.basis))
        if name == MEMORY:
            found[name] = Range(max(one.low for one in known), max(one.high for one in known), basis)
        else:
            found[name] = total(known).because(basis)
    return found


def priced(quantities: dict[str, Range], machine: Machine, num_gpus: int, prices: Prices) -> dict[str, Range]:
    """Return the quantities with GPU-hours or core-hours added, and their cost if a price is known."""
    seconds = quantities.get(SECONDS)
    if seconds is None:
        return quantities
    if machine.num_gpus:
        hours = seconds.times(num_gpus / 3_600)
        price = prices.gpu(machine.kinds)
        found = {GPU_HOURS: hours.because(counted(num_gpus, "GPU"))}
    else:
        hours = seconds.times(machine.num_cores / 3_600)
        per_core = prices.cpu_core_hour
        price = per_core.range(f"{prices.currency} a core-hour ({prices.dated})") if per_core else None
        found = {CPU_HOURS: hours.because(counted(machine.num_cores, "core"))}
    if price is not None:
        found[COST] = hours.by(price).because(price.basis)
    return {**quantities, **found}
