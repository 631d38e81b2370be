"""Compares a repetition, stage by stage, with the run that its lock records."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distill.core.file_kinds import is_file
from distill.recipe.steps import stage_of
from distill.results.eval import EvalMetrics
from distill.results.kinds import metrics_of
from distill.storage.fingerprints import differences, sha256_of

COMPARISON_FILE = "repeat.json"
TIMED = frozenset({"metrics.jsonl"})
"""Outputs with timings, which always differ."""


def compare(lock: Mapping[str, Any], manifests: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the comparison, JSON-ready.

    Args:
        lock: of the original run.
        manifests: of the repetition's stages.
    """
    stages = {
        name: _compare_stage(name, then, manifests[name])
        for name, then in lock.get("stages", {}).items()
        if name in manifests
    }
    return {
        "schema_version": 1,
        "of": lock["recipe"].get("name"),
        "same": all(stage["same"] for stage in stages.values()),
        "stages": stages,
        "not_repeated": [name for name in lock.get("stages", {}) if name not in manifests],
        "changed_files": [
            name
            for name, sha256 in (lock.get("files") or {}).items()
            if is_file(Path(name)) and sha256_of(Path(name)) != sha256
        ],
        "versions": {
            package: list(pair)
            for name in stages
            for package, pair in differences(
                lock["stages"][name].get("versions", {}), manifests[name]["versions"]
            ).items()
        },
    }


def comparison_lines(comparison: Mapping[str, Any]) -> list[str]:
    """Return the comparison as lines of text."""
    lines = [f"Compared with {comparison['of']}, the run that the lock records:"]
    for name, stage in comparison["stages"].items():
        if stage["same"]:
            lines.append(f"  {name}: the same, to the last byte")
            continue
        unlike = [output for output, state in stage["outputs"].items() if state != "same"]
        asked = "" if stage["same_fingerprint"] else "; its inputs or settings differ (fingerprint)"
        lines.append(f"  {name}: differs in {', '.join(unlike[:4])}{', …' if len(unlike) > 4 else ''}{asked}")
        lines += [f"    {line}" for line in _result_lines(stage["results"])]
    for name in comparison["not_repeated"]:
        lines.append(f"  {name}: not repeated")
    lines += [f"  {name} has changed since" for name in comparison["changed_files"]]
    if comparison["versions"]:
        shown = [
            f"{package} {then or 'none'} -> {now or 'none'}" for package, (then, now) in comparison["versions"].items()
        ]
        lines.append(f"  versions: {', '.join(shown)}")
    return lines


def _compare_stage(name: str, then: Mapping[str, Any], manifest: Mapping[str, Any]) -> dict[str, Any]:
    before, after = then.get("outputs", {}), manifest["outputs"]
    outputs = {
        path: _state(before.get(path), after.get(path)) for path in sorted((before.keys() | after.keys()) - TIMED)
    }
    found = metrics_of(stage_of(name), manifest)
    now = found.locked()
    changed = differences(then.get("results", {}), now)
    # Some results are only in the metrics, so equal files are not enough.
    same = all(state == "same" for state in outputs.values()) and not changed
    results: dict[str, Any] = {key: list(pair) for key, pair in changed.items()}
    if changed and isinstance(found, EvalMetrics):  # a score means nothing without its interval
        results = {role: [then["results"].get(role), one] for role, one in now.items()}
    return {
        "same": same,
        "same_fingerprint": then.get("fingerprint") == manifest["fingerprint"],
        "outputs": outputs,
        "results": results,
    }


def _state(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> str:
    if before is None or after is None:
        return "new" if before is None else "gone"
    return "same" if before.get("sha256") == after.get("sha256") else "differs"


def _result_lines(results: Mapping[str, Any]) -> list[str]:
    lines = []
    for key, (then, now) in results.items():
        if isinstance(then, Mapping) and isinstance(now, Mapping) and "pass_at_1" in now:
            lines.append(_score_line(key, then, now))
        else:
            lines.append(f"{key}: {_shown(then)} then, {_shown(now)} now")
    return lines


def _score_line(role: str, then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    (low, high), (new_low, new_high) = then["interval_95"], now["interval_95"]
    overlap = "overlap" if new_low <= high and low <= new_high else "do not overlap"
    if role == "difference":
        return (
            f"difference: {then['pass_at_1'] * 100:+.1f} points ({low * 100:+.1f} to {high * 100:+.1f}) then, "
            f"{now['pass_at_1'] * 100:+.1f} points ({new_low * 100:+.1f} to {new_high * 100:+.1f}) now; "
            f"the intervals {overlap}"
        )
    return (
        f"{role} pass@1: {then['pass_at_1']:.1%} ({low:.1%} to {high:.1%}) then, {now['pass_at_1']:.1%} ({new_low:.1%} "
        f"to {new_high:.1%}) now; the intervals {overlap}"
    )


def _shown(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}" if isinstance(value, float) else str(value)
