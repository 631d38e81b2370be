"""The scores of all rounds of a run side by side: every model, and the paired difference of every two."""

import contextlib
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from distill.core.formatting import mapping
from distill.core.statistics import paired_difference
from distill.errors import DistillError
from distill.report.questions import read_verdicts, share_right
from distill.storage.run_files import RunFiles
from distill.storage.run_folder import StageFolder

BASE, STUDENT = "base", "student"
Shares = Mapping[str, float]
"""Problem -> share of right answers."""


def round_scores(run_dir: Path, rounds: Sequence[str], seed: int) -> dict[str, Any]:
    """Return the score of each measured model and the paired difference of each two, JSON-ready.

    Args:
        run_dir: `runs/<name>`.
        rounds: names of the rounds, in order.
        seed: seed of the bootstrap.

    Returns:
        `models`: name (`base`, or that of a round) -> score, of a round with the name of its `base`;
        `pairs`: `{"of", "over", "pass_at_1", "interval_95", …}`.
    """
    models: dict[str, Any] = {}
    shares: dict[str, Shares] = {}
    for name in rounds:
        manifest = _manifest(run_dir / name)
        if manifest is None:
            continue
        base = _base_label(manifest, models)
        for label, role in ((base, BASE), (name, STUDENT)):
            if label in models:
                continue
            found = _shares(run_dir / name, role)
            if found is not None:
                models[label] = dict(mapping(manifest["metrics"].get(role)))
                if role == BASE:
                    models[label]["revision"] = manifest["identity"].get("base_revision")
                else:
                    models[label]["base"] = base
                shares[label] = found
    pairs = [
        {"of": later, "over": earlier, **paired_difference(shares[earlier], shares[later], seed)}
        for earlier, later in combinations(shares, 2)
        if shares[earlier].keys() == shares[later].keys()
    ]
    return {"models": models, "pairs": pairs}


def difference_of(run_dir: Path, of: str, over: str, seed: int) -> dict[str, Any] | None:
    """Return the paired difference of a round's model over another round's, or over its `base`; `None` if unknown."""
    after = _shares(run_dir / of, STUDENT)
    before = _shares(run_dir / (of if over == BASE else over), BASE if over == BASE else STUDENT)
    if after is None or before is None or after.keys() != before.keys():
        return None
    return paired_difference(before, after, seed)


def _base_label(manifest: Mapping[str, Any], models: Mapping[str, Any]) -> str:
    """Return `base` for the first base, and the model's name for a different one of a later round."""
    name = mapping(manifest["metrics"].get(BASE)).get("model")
    first = models.get(BASE)
    return BASE if first is None or first.get("model") == name else str(name)


def _manifest(round_dir: Path) -> dict[str, Any] | None:
    with contextlib.suppress(DistillError):
        return StageFolder(RunFiles(round_dir).measured).manifest
    return None


def _shares(round_dir: Path, role: str) -> Shares | None:
    """Return each problem's share of right answers, or `None` if the round is not measured."""
    if _manifest(round_dir) is None:
        return None
    with contextlib.suppress(DistillError, OSError, ValueError, KeyError):
        return {name: share_right(found) for name, found in read_verdicts(RunFiles(round_dir).answers(role)).items()}
    return None
