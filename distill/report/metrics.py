"""The metrics of a run's stages as the page reads them: any key may be missing, since a run may be damaged."""

from distill.core.formatting import Row, mapping
from distill.results.kinds import stage_with
from distill.results.measure import MeasureMetrics
from distill.storage.run_files import FILTERED, IMPORTED, MEASURED, REINFORCED, SAMPLED, TRAINED

MODELS_MEASURED = stage_with(MeasureMetrics)
"""Name of the stage that evaluates `eval.models`, which is that of its folder."""


def _of(facts: Row, stage: str) -> Row:
    return mapping(mapping(facts.get("stages")).get(stage))


def sampled(facts: Row) -> Row:
    return _of(facts, SAMPLED)


def imported(facts: Row) -> Row:
    return _of(facts, IMPORTED)


def filtered(facts: Row) -> Row:
    return _of(facts, FILTERED)


def trained(facts: Row) -> Row:
    return _of(facts, TRAINED)


def reinforced(facts: Row) -> Row:
    return _of(facts, REINFORCED)


def measured(facts: Row) -> Row:
    return _of(facts, MEASURED)


def models_measured(facts: Row) -> Row:
    return _of(facts, MODELS_MEASURED)


def only_measures(facts: Row) -> bool:
    """Return whether a run has no traces and trains nothing."""
    names = {*(facts.get("stage_names") or ()), *mapping(facts.get("stages"))}
    return MODELS_MEASURED in names and not names & {SAMPLED, IMPORTED, FILTERED, TRAINED, REINFORCED, MEASURED}
