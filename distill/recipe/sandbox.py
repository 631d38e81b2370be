"""The `sandbox:` section: where the programs of `task: code` run."""

from collections.abc import Sequence
from typing import Protocol

from pydantic import PositiveInt

from distill.recipe.base import Strict, Url
from distill.recipe.eval import EvalConfig
from distill.recipe.problems import ProblemSource
from distill.recipe.traces import TraceSource

CODE = "code"


class SandboxConfig(Strict):
    """Where programs in answers run; not part of a fingerprint."""

    url: Url | None = None
    """A remote runner with Piston's interface, e.g. `http://host:2000/api/v2`, for machines that forbid user
    namespaces. Default: bubblewrap on this machine."""
    workers: PositiveInt | None = None
    """Programs tested at a time. Default: one per core."""


class HasSources(Protocol):
    """A recipe, as far as it names sources."""

    @property
    def problems(self) -> Sequence[ProblemSource]: ...
    @property
    def traces(self) -> Sequence[TraceSource]: ...
    @property
    def eval(self) -> EvalConfig | None: ...


def trained_programs(recipe: HasSources) -> list[str]:
    """Return the keys of a round, or of a recipe without rounds, whose answers to train on are programs."""
    return [
        *(f"problems.{number}" for number, one in enumerate(recipe.problems) if one.task == CODE),
        *(f"traces.{number}" for number, one in enumerate(recipe.traces) if one.task == CODE),
    ]


def measured_programs(recipe: HasSources) -> list[str]:
    """Return the keys of a round, or of a recipe without rounds, whose answers to evaluate are programs."""
    if recipe.eval is None:
        return []
    held_out = recipe.problems if recipe.eval.held_out else []
    return [
        *(f"problems.{number}" for number, one in enumerate(held_out) if one.task == CODE),
        *(f"eval.benchmarks.{number}" for number, one in enumerate(recipe.eval.benchmarks) if one.task == CODE),
    ]
