"""Facts about a finished run, from manifests that are checked for consistency. Cards, lock and file list use them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from distill.core.formatting import mapping
from distill.core.json_shape import ANY, TEXT, fault
from distill.core.redaction import local_name
from distill.errors import StoreError
from distill.models.hub_names import names_folder
from distill.recipe.lineage import check_lineage, command_of
from distill.recipe.model import Recipe
from distill.recipe.problems import ProblemSource
from distill.recipe.rounds import round_in
from distill.recipe.steps import PUBLISHING
from distill.recipe.traces import TraceSource
from distill.results.eval import EvalMetrics
from distill.results.filter import FilterMetrics
from distill.results.generate import GenerateMetrics
from distill.results.kinds import Metrics, recorded
from distill.results.rl import RlMetrics
from distill.results.sft import SftMetrics
from distill.sources.problem_rows import source_label
from distill.storage.files import read_object
from distill.storage.run_files import FILTERED, RunFiles
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
    earlier: "Mapping[str, RunFacts]" = field(default_factory=dict)
    """The earlier rounds that this round was made from, directly or not, by name; empty without rounds."""

    @property
    def files(self) -> RunFiles:
        return RunFiles(self.run_dir, self.recipe.making_stage)

    def recorded(self, model: type[Metrics]) -> Metrics | None:
        """Return the metrics of the stage with this model, or `None` if it is not complete."""
        return recorded(self.manifests, model)

    @property
    def started_from(self) -> SftMetrics | RlMetrics | None:
        """Return the metrics of the first stage that trained here, which name the base; `None`: none is complete."""
        return self.recorded(SftMetrics) or self.recorded(RlMetrics)

    @property
    def made(self) -> SftMetrics | RlMetrics:
        """Return the metrics of the stage that made the model, which is complete wherever something is published."""
        found = self.reinforced or self.recorded(SftMetrics)
        assert found is not None
        return found

    @property
    def trained(self) -> SftMetrics | None:
        """Return the metrics of the last training on traces, here or in an earlier round; `None`: there was none."""
        return self.recorded(SftMetrics) or (self._before.trained if self._before is not None else None)

    @property
    def reinforced(self) -> RlMetrics | None:
        """Return the metrics of reinforcement learning here; `None`: there was none."""
        return self.recorded(RlMetrics)

    @property
    def _before(self) -> "RunFacts | None":
        """Return the round whose model was trained further."""
        return self.earlier.get(self.recipe.student_round or "")

    @cached_property
    def scores(self) -> EvalMetrics | None:
        """Return the scores, or `None` if nothing was measured."""
        return self.recorded(EvalMetrics)

    def hash_of(self, output: Path) -> str:
        """Return the SHA-256 (hex) that an output of a stage had when the stage was complete.

        Raises:
            StoreError: its manifest does not name it.
        """
        found = self.manifests[output.parent.name]["outputs"].get(output.name)
        if found is None:
            raise StoreError(f"{output}: its stage did not record it. `{self.command_for(output)}` makes it.")
        return str(found["sha256"])

    def command_for(self, output: Path) -> str:
        """Return the command that makes an output of a stage."""
        return command_of(self.recipe, output.parent.name)

    @property
    def row_runs(self) -> "list[RunFacts]":
        """Return the rounds whose kept rows were trained on; only itself without rounds, none if there are no rows."""
        own = self.recipe.round_name
        if not self.recipe.trains and self._before is not None:
            return self._before.row_runs
        return [self if name in (None, own) else self.earlier[str(name)] for name in self.recipe.row_rounds]

    @cached_property
    def filtered(self) -> FilterMetrics:
        """Return the filter's counts over all rows that were trained on; there are some."""
        found = [one.recorded(FilterMetrics) for one in self.row_runs]
        if len(found) == 1 and found[0] is not None:
            return found[0]
        counts = _added([one.to_json() for one in found if one is not None])
        num_correct = sum(one["num_correct"] for one in counts["by_source"].values())
        num_graded = counts["num_traces"] - counts["num_ungraded"]
        return FilterMetrics.from_json({**counts, "correct_share": num_correct / num_graded if num_graded else None})

    @property
    def source(self) -> str:
        """Return the stage that the traces come from."""
        return self.recipe.traces_stage

    @property
    def base_name(self) -> str:
        """Return the base as the recipe names it: Hub id or folder."""
        found = self.started_from
        assert found is not None
        return found.student

    @property
    def base(self) -> str:
        """Return the base's name without local folders."""
        return local_name(self.base_name)

    @property
    def base_is_on_hub(self) -> bool:
        return is_hub_id(self.base_name)

    @property
    def base_revision(self) -> str:
        made_by = self.earlier.get(self.recipe.student_round or "")
        if made_by:
            return made_by.base_revision
        # Not trained: the lock of a run whose earlier round is just made again.
        return self.started_from.student_revision if self.started_from is not None else ""

    @cached_property
    def teachers(self) -> list[tuple[str, str]]:
        """Return (name, revision) of each teacher, as the recipe or the traces name it."""
        sampled = self.recorded(GenerateMetrics)
        if not self.recipe.traces and sampled is not None:
            return [(sampled.teacher, sampled.teacher_revision)]
        if not self.recipe.has_traces:
            return []
        found = _teachers_of(self.files.kept)
        # A policy changes with every step: its rollouts as a whole are told, not the weights of each.
        made = mapping(mapping(self.manifests.get(self.source, {}).get("identity")).get("rollouts"))
        told = [(name, str(made.get(round_in(name) or "", revision))) for name, revision in found]
        return list(dict.fromkeys(told))

    @cached_property
    def source_teachers(self) -> list[tuple[str, str]]:
        """Return the teachers of all rounds that went into the model; a round's model counts as its base."""
        found: dict[tuple[str, str], None] = {}
        for one in (*self.earlier.values(), self):
            if one.source not in one.manifests:
                continue
            for name, revision in one.teachers:
                made_by = self.earlier.get(round_in(name) or "")
                found[(made_by.base_name, made_by.base_revision) if made_by else (name, revision)] = None
        return list(found)

    @cached_property
    def certificate(self) -> Mapping[str, Any]:
        """Return which evaluation sets the problems were checked against; empty if the filter is not complete.

        Raises:
            StoreError: the certificate is damaged.
        """
        found = [one._own_certificate for one in self.row_runs] or [self._own_certificate]
        if len(found) == 1:
            return found[0]
        # A set that one round was not checked against is not one that the rows were checked against.
        names = set.intersection(*({one["name"] for one in own.get("sets", [])} for own in found))
        counts = ("num_problems_checked", "num_problems_removed", "hits")
        added = _added([{key: own[key] for key in counts if key in own} for own in found])
        return {**found[0], **added, "sets": [one for one in found[0].get("sets", []) if one["name"] in names]}

    @property
    def _own_certificate(self) -> Mapping[str, Any]:
        path = self.files.certificate
        found = read_object(path) or {} if FILTERED in self.manifests else {}
        if what := fault(found, _CERTIFICATE_SHAPE):
            raise StoreError(f"{path}: damaged ({what}). Run `{self.command_for(path)}`, which makes it again.")
        return found

    @property
    def hub_datasets(self) -> list[str]:
        """Return the Hub ids of the datasets that problems and traces come from."""
        return list(dict.fromkeys(one.source[3:] for one in self.sources if one.source.startswith("hf:")))

    @property
    def sources(self) -> list[ProblemSource | TraceSource]:
        traces = [source for one in self.row_runs for source in one.recipe.traces]
        return [*self.recipe.problems, *traces]

    @property
    def seconds(self) -> float:
        runs = (*self.earlier.values(), self)
        return sum(float(manifest.get("seconds") or 0.0) for one in runs for manifest in one.manifests.values())


def gather(
    recipe: Recipe,
    run_dir: Path,
    manifests: Mapping[str, Mapping[str, Any]],
    earlier: Mapping[str, RunFacts] | None = None,
) -> RunFacts:
    """Return the facts of a run, or of one round.

    Args:
        recipe: the recipe, or a round as a recipe without rounds.
        run_dir: its folder.
        manifests: of its stages.
        earlier: the rounds that this round was made from, by name.

    Raises:
        StoreError, UserError: see `distill.recipe.lineage.check_lineage`.
    """
    check_lineage(recipe, manifests, list(manifests), PUBLISHING)
    return RunFacts(recipe, run_dir, manifests, earlier or {})


def _added(several: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the sums of the counts in several metrics of the filter; what cannot be added is that of the first."""
    found: dict[str, Any] = {}
    for metrics in several:
        for key, value in metrics.items():
            before = found.get(key)
            if isinstance(value, Mapping):
                found[key] = _added([before or {}, value])
            elif isinstance(value, int) and isinstance(before, int):
                found[key] = before + value
            elif before is None:
                found[key] = value
    return found


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
