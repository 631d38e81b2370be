"""Facts about a finished run, from manifests that are checked for consistency. Cards, lock and file list use them."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from distill.core.json_shape import ANY, TEXT, fault
from distill.core.redaction import local_name
from distill.errors import StoreError
from distill.models.hub_names import names_folder
from distill.recipe.lineage import check_lineage
from distill.recipe.model import Recipe
from distill.recipe.problems import ProblemSource
from distill.recipe.traces import TraceSource
from distill.sources.problems import source_label
from distill.storage.files import read_object
from distill.storage.layout import CERTIFICATE, KEPT
from distill.storage.shards import readable

NUM_TEACHERS_SHOWN = 20
_CERTIFICATE_SHAPE = {"sets?": [{"name": TEXT, "*": ANY}]}


@dataclass(frozen=True)
class RunFacts:
    """A finished run."""

    recipe: Recipe
    run_dir: Path
    manifests: Mapping[str, Mapping[str, Any]]
    """By stage; `eval` is absent if the recipe has none."""

    def metrics(self, stage: str) -> Mapping[str, Any]:
        """Return the metrics of a stage's manifest; empty if there is no such stage."""
        found: Mapping[str, Any] = self.manifests.get(stage, {}).get("metrics", {})
        return found

    @property
    def source(self) -> str:
        """Return the stage that the traces come from."""
        return self.recipe.traces_stage

    @property
    def base_name(self) -> str:
        """Return the base as the recipe names it: Hub id or folder."""
        return str(self.metrics("sft")["student"])

    @property
    def base(self) -> str:
        """Return the base's name without local folders."""
        return local_name(self.base_name)

    @property
    def base_is_on_hub(self) -> bool:
        return is_hub_id(self.base_name)

    @property
    def base_revision(self) -> str:
        return str(self.metrics("sft").get("student_revision", ""))

    @cached_property
    def teachers(self) -> list[tuple[str, str]]:
        """Return (name, revision) of each teacher, as the recipe or the traces name it."""
        if self.source == "generate":
            metrics = self.metrics("generate")
            return [(str(metrics["teacher"]), str(metrics.get("teacher_revision") or ""))]
        return _teachers_of(self.run_dir / "filter" / KEPT)

    @cached_property
    def certificate(self) -> Mapping[str, Any]:
        """Return which evaluation sets the problems were checked against; empty if the filter is not complete.

        Raises:
            StoreError: the certificate is damaged.
        """
        path = self.run_dir / "filter" / CERTIFICATE
        found = read_object(path) or {} if "filter" in self.manifests else {}
        if what := fault(found, _CERTIFICATE_SHAPE):
            raise StoreError(f"{path}: damaged ({what}). Run `distill filter`, which makes it again.")
        return found

    @property
    def hub_datasets(self) -> list[str]:
        """Return the Hub ids of the datasets that problems and traces come from."""
        return list(dict.fromkeys(one.source[3:] for one in self.sources if one.source.startswith("hf:")))

    @property
    def sources(self) -> list[ProblemSource | TraceSource]:
        return [*self.recipe.problems, *self.recipe.traces]

    @property
    def seconds(self) -> float:
        return sum(float(manifest.get("seconds") or 0.0) for manifest in self.manifests.values())


def gather(recipe: Recipe, run_dir: Path, manifests: Mapping[str, Mapping[str, Any]]) -> RunFacts:
    """Return the facts of a run.

    Raises:
        StoreError, UserError: see `distill.recipe.lineage.check_lineage`.
    """
    check_lineage(recipe, manifests, list(manifests), "push")
    return RunFacts(recipe, run_dir, manifests)


def is_hub_id(name: str) -> bool:
    """Return whether a name is a Hub id rather than a folder or an alias."""
    return name.count("/") == 1 and not names_folder(name)


def shown_sources(facts: RunFacts) -> list[tuple[str, str]]:
    """Return the distinct (label, pinned revision) of the sources of problems and traces."""
    return list(dict.fromkeys((source_label(source), source.revision or "") for source in facts.sources))


def _teachers_of(kept: Path) -> list[tuple[str, str]]:
    import pyarrow.parquet as pq

    found: dict[tuple[str, str], None] = {}
    for file in sorted(kept.glob("*.parquet")):
        with readable(file):
            table = pq.read_table(file, columns=["teacher", "teacher_revision"])
        pairs = table.group_by(["teacher", "teacher_revision"]).aggregate([]).to_pylist()
        found |= {(str(row["teacher"]), str(row["teacher_revision"] or "")): None for row in pairs}
    return sorted(found)
