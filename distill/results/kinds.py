"""Which models belong to which stage, and how they are read from manifests and summaries."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from distill.core.json_shape import MANIFEST, fault
from distill.errors import StoreError
from distill.results import eval, filter, generate, import_traces, measure, push, rl, sft
from distill.results.base import Recorded, fault_in
from distill.results.eval import EvalInputs, EvalMetrics
from distill.results.filter import FilterInputs, FilterMetrics
from distill.results.generate import GenerateInputs, GenerateMetrics
from distill.results.import_traces import ImportInputs, ImportMetrics
from distill.results.measure import MeasureInputs, MeasureMetrics
from distill.results.push import PushMetrics
from distill.results.rl import RlInputs, RlMetrics
from distill.results.sft import SftInputs, SftMetrics


@dataclass(frozen=True, slots=True)
class Kind:
    """What is known of a stage without its code."""

    title: str
    """What it does, as a heading."""
    does: str
    """The same as a verb phrase."""
    metrics: type[Recorded] = Recorded
    inputs: type[Recorded] = Recorded
    """The parts of its identity that others look at."""


KINDS: dict[str, Kind] = {
    "generate": Kind(generate.TITLE, generate.DOES, GenerateMetrics, GenerateInputs),
    "import": Kind(import_traces.TITLE, import_traces.DOES, ImportMetrics, ImportInputs),
    "filter": Kind(filter.TITLE, filter.DOES, FilterMetrics, FilterInputs),
    "sft": Kind(sft.TITLE, sft.DOES, SftMetrics, SftInputs),
    "rl": Kind(rl.TITLE, rl.DOES, RlMetrics, RlInputs),
    "eval": Kind(eval.TITLE, eval.DOES, EvalMetrics, EvalInputs),
    "measure": Kind(measure.TITLE, measure.DOES, MeasureMetrics, MeasureInputs),
    "push": Kind(push.TITLE, push.DOES, PushMetrics),
}


COMMANDS = {"measure": "eval"}
"""Stage -> the command that runs it, where that is not called as the stage."""


def command_for(stage: str) -> str:
    """Return the name of the command that runs a stage."""
    return COMMANDS.get(stage, stage)


def stage_with(metrics: type[Recorded]) -> str:
    """Return the name of the stage that records these metrics."""
    return next(name for name, kind in KINDS.items() if kind.metrics is metrics)


def kind_of(stage: str) -> Kind:
    """Return what is known of a stage; of a team's own stage only its name."""
    return KINDS.get(stage) or Kind(stage, stage)


Inputs = TypeVar("Inputs", bound=Recorded)


def inputs_of(manifests: Mapping[str, Mapping[str, Any]], model: type[Inputs]) -> Inputs | None:
    """Return what the stage with these inputs was made from; `None` if it is not finished."""
    found = (manifest["identity"] for name, manifest in manifests.items() if kind_of(name).inputs is model)
    return next((model.model_validate(one) for one in found), None)


def metrics_of(stage: str, manifest: Mapping[str, Any]) -> Recorded:
    """Return the metrics of a finished stage, from its manifest."""
    return kind_of(stage).metrics.model_validate(manifest["metrics"])


Metrics = TypeVar("Metrics", bound=Recorded)


def recorded(manifests: Mapping[str, Mapping[str, Any]], model: type[Metrics]) -> Metrics | None:
    """Return the metrics of the stage with this model, from the manifests by stage; `None` if it is not finished."""
    manifest = manifests.get(stage_with(model))
    return None if manifest is None else model.model_validate(manifest["metrics"])


def metrics_in(summary: Mapping[str, Any], model: type[Metrics]) -> Metrics | None:
    """Return the metrics of one stage in a `summary.json`; `None` if the stage is not finished.

    Raises:
        StoreError: they are damaged.
    """
    stage = stage_with(model)
    if stage not in summary:
        return None
    if fault := fault_in(model, summary[stage], stage):
        raise StoreError(f"summary.json: damaged ({fault}). `distill run` writes it anew.")
    return model.model_validate(summary[stage])


def fault_of(manifest: Mapping[str, Any], stage: str) -> str:
    """Return what is wrong with a manifest, in words; empty if nothing is.

    Args:
        manifest: the content of the file.
        stage: the stage it belongs to. For a team's own one, only what all manifests have in common is checked.
    """
    if stage in KINDS and manifest.get("stage") != stage:
        return f"stage is {manifest.get('stage')!r:.40}, not {stage}"
    kind = kind_of(stage)
    return (
        fault(manifest, MANIFEST)
        or fault_in(kind.metrics, manifest["metrics"], "metrics")
        or fault_in(kind.inputs, manifest["identity"], "identity")
    )
