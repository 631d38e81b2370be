"""What the manifests of a finished run tell, checked for telling one story.

Enters: the recipe and the manifests. Leaves: a `RunFacts`, from which cards, lock and list of files are made.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from distill.errors import StoreError, UserError
from distill.hub_names import names_folder
from distill.problems import source_label
from distill.publish.scrub import local_name
from distill.recipe import ProblemSource, Recipe, TraceSource
from distill.store import differences, fingerprint, read_json
from distill.students import find_student
from distill.trace_store import TRACES

KEPT, DROPPED, STUDENT, ADAPTER = "kept", "dropped", "student", "adapter"
CERTIFICATE = "decontamination.json"
NUM_TEACHERS_SHOWN = 20


@dataclass(frozen=True)
class RunFacts:
    """A finished run."""

    recipe: Recipe
    run_dir: Path
    manifests: Mapping[str, Mapping[str, Any]]
    """By stage; `eval` is missing where the recipe has none."""

    def metrics(self, stage: str) -> Mapping[str, Any]:
        """What a stage's manifest counts; empty where there is no such stage."""
        found: Mapping[str, Any] = self.manifests.get(stage, {}).get("metrics", {})
        return found

    @property
    def source(self) -> str:
        """The stage that the traces come from."""
        return self.recipe.traces_stage

    @property
    def base_name(self) -> str:
        """The base as the recipe knows it: Hub id or folder."""
        return str(self.metrics("sft")["student"])

    @property
    def base(self) -> str:
        """The base as others know it."""
        return local_name(self.base_name)

    @property
    def base_is_on_hub(self) -> bool:
        return is_hub_id(self.base_name)

    @property
    def base_revision(self) -> str:
        return str(self.metrics("sft").get("student_revision", ""))

    @cached_property
    def teachers(self) -> list[tuple[str, str]]:
        """(name, revision) of each, as the recipe or the traces know it."""
        if self.source == "generate":
            metrics = self.metrics("generate")
            return [(str(metrics["teacher"]), str(metrics.get("teacher_revision") or ""))]
        return _teachers_of(self.run_dir / "filter" / KEPT)

    @cached_property
    def certificate(self) -> Mapping[str, Any]:
        """Which evaluation sets the problems were checked against."""
        return read_json(self.run_dir / "filter" / CERTIFICATE) or {}

    @property
    def hub_datasets(self) -> list[str]:
        """Hub ids of the data sets that problems and traces come from."""
        return list(dict.fromkeys(one.source[3:] for one in self.sources if one.source.startswith("hf:")))

    @property
    def sources(self) -> list[ProblemSource | TraceSource]:
        return [*self.recipe.problems, *self.recipe.traces]

    @property
    def seconds(self) -> float:
        return sum(float(manifest.get("seconds") or 0.0) for manifest in self.manifests.values())


def gather(recipe: Recipe, run_dir: Path, manifests: Mapping[str, Mapping[str, Any]]) -> RunFacts:
    """The facts of a run.

    Raises:
        StoreError: the manifests are not of one run: a stage was made anew since another used it.
        UserError: a stage was made with other settings than the recipe has now.
    """
    _check_chain(recipe, manifests)
    _check_settings(recipe, manifests)
    return RunFacts(recipe, run_dir, manifests)


def is_hub_id(name: str) -> bool:
    """Whether a model's name leads to the Hub."""
    return name.count("/") == 1 and not names_folder(name)


def shown_sources(facts: RunFacts) -> list[tuple[str, str]]:
    """(label, pinned revision) of each source of problems or traces, each once."""
    return list(dict.fromkeys((source_label(source), source.revision or "") for source in facts.sources))


def _teachers_of(kept: Path) -> list[tuple[str, str]]:
    import pyarrow.parquet as pq

    found: dict[tuple[str, str], None] = {}
    for file in sorted(kept.glob("*.parquet")):
        table = pq.read_table(file, columns=["teacher", "teacher_revision"])
        pairs = table.group_by(["teacher", "teacher_revision"]).aggregate([]).to_pylist()
        found |= {(str(row["teacher"]), str(row["teacher_revision"] or "")): None for row in pairs}
    return sorted(found)


def _check_chain(recipe: Recipe, manifests: Mapping[str, Mapping[str, Any]]) -> None:
    """Each stage must have been made from what the one before it holds now."""
    source, filtered, trained = (manifests[name] for name in (recipe.traces_stage, "filter", "sft"))
    traces = {n: o["sha256"] for n, o in source["outputs"].items() if n.startswith(f"{TRACES}/")}
    links = [
        ("filter", recipe.traces_stage, filtered["identity"].get("traces"), fingerprint(traces)),
        ("sft", "filter", trained["identity"].get("rows"), filtered["outputs"][KEPT]["sha256"]),
    ]
    if "eval" in manifests:
        measured = manifests["eval"]["identity"].get("student")
        links.append(("eval", "sft", measured, trained["outputs"][STUDENT]["sha256"]))
    for stage, before, used, is_there in links:
        if used != is_there:
            raise StoreError(
                f"push: {stage} was made from another result of {before} than the one that is there now, so a card "
                f"would tell of something else than what is published. Run `distill {stage}` again, or "
                "`distill run` for all."
            )


def _check_settings(recipe: Recipe, manifests: Mapping[str, Mapping[str, Any]]) -> None:
    """The recipe that is published must be the one that was run."""
    now = recipe.model_dump(mode="json")
    for stage, manifest in manifests.items():
        section = getattr(recipe, stage, None)
        before = manifest.get("config")
        if not isinstance(section, BaseModel) or not isinstance(before, Mapping):
            continue
        try:
            # Read once more, so that fields which are new since then have their defaults.
            normal = type(section).model_validate(before).model_dump(mode="json")
        except ValidationError:
            continue
        changed = {
            key: pair for key, pair in differences(normal, now[stage]).items() if "compute" not in key.split(".")
        }
        if changed:
            shown = ", ".join(f"{stage}.{key}: {old!r} -> {new!r}" for key, (old, new) in list(changed.items())[:3])
            raise UserError(
                f"push: the recipe has changed since {stage} was run ({shown:.300}), so it is not what made this "
                "student. Undo the change, or run `distill run` again."
            )
    seed, student = manifests["sft"]["identity"].get("seed"), manifests["sft"]["identity"].get("student")
    wanted = find_student(recipe.student).hub_id
    if (seed, student) != (recipe.seed, wanted):
        raise UserError(
            f"push: the student was trained from {student} with seed {seed}, and the recipe says {wanted} with seed "
            f"{recipe.seed}. Undo the change, or run `distill run` again."
        )
