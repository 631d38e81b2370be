"""How far an evaluation is, from its files alone."""

from pathlib import Path
from typing import Any

from distill.errors import UserError
from distill.evaluation.judged import NO_VERDICT
from distill.evaluation.measured_sets import read_sets
from distill.storage.files import read_json, read_jsonl
from distill.storage.layout import BENCHMARKS, IDENTITY, LEDGER, VERDICTS
from distill.storage.ledger import index_ledger


def num_answers(folder: Path, num_models: int | None = None) -> dict[str, Any]:
    """Return the number of answers so far, and of all that are wanted: without those that adaptive sets do not need.

    Args:
        folder: the stage's folder.
        num_models: how many models answer. Default: as many as the identity names.
    """
    ledgers = [index_ledger(ledger) for ledger in folder.glob(f"*/{LEDGER}")]
    if num_models is None:
        num_models = len((read_json(folder / IDENTITY) or {}).get("models") or ())
    try:
        each = sum(len(one.problems) * one.samples_per_problem for one in read_sets(folder / BENCHMARKS))
    except UserError:  # not written yet, or damaged
        each = 0
    num_done = sum(len(index.places) for index in ledgers)
    num_wanted = num_models * each - sum(len(index.skipped) for index in ledgers) if each else 0
    return {"num_done": num_done, "num_wanted": num_wanted or None, "unit": "answers"}


def num_failed(folder: Path) -> int:
    """Return how many samples failed, and how many answers the judge gave no verdict on."""
    errors = sum(len(index_ledger(ledger).errors) for ledger in folder.glob(f"*/{LEDGER}"))
    return errors + _num_verdicts(folder, NO_VERDICT)


def num_not_run(folder: Path) -> int:
    """Return how many programs no sandbox could run."""
    return _num_verdicts(folder, "ungraded_sandbox")


def _num_verdicts(folder: Path, reason: str) -> int:
    files = folder.glob(f"*/{VERDICTS}")
    return sum(reason in (row.get("reasons") or ()) for file in files for row in read_jsonl(file))


def forget_if_empty(folder: Path) -> bool:
    """Unless there is a successful answer, remove the ledgers and return `True`."""
    ledgers = list(folder.glob(f"*/{LEDGER}"))
    if any(index.places.keys() - index.errors for index in map(index_ledger, ledgers)):
        return False
    for ledger in ledgers:
        ledger.unlink(missing_ok=True)
    return True
