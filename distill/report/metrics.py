"""The metrics of a run's stages as the page reads them: any key may be missing, since a run may be damaged."""

from distill.core.formatting import Row, mapping
from distill.storage.run_files import FILTERED, IMPORTED, MEASURED, SAMPLED, TRAINED


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


def measured(facts: Row) -> Row:
    return _of(facts, MEASURED)
