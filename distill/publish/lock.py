"""The lock of a run: `recipe.lock.yaml`, which `distill run` accepts in place of a recipe to repeat the run.

It holds the recipe with every default and revision written out; models, datasets and files with their commits and
hashes; seeds; and each stage's versions, hashes and results, with which a repetition is compared.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from distill import __version__
from distill.core.file_kinds import is_file
from distill.core.redaction import local_name
from distill.errors import RecipeError
from distill.models.hub import loaded_commit
from distill.models.students import find_student
from distill.publish.facts import RunFacts, is_hub_id
from distill.recipe.lock_shape import LOCK_KEY, LOCK_VERSION, LockShape, recipe_in_lock
from distill.recipe.model import Recipe, recipe_of_tree, with_parts
from distill.recipe.problems import ProblemSource
from distill.recipe.sources import file_sources
from distill.recipe.steps import PUBLISHING
from distill.recipe.suites import Baseline, BenchmarkSource
from distill.recipe.text import recipe_yaml
from distill.recipe.traces import TraceSource
from distill.recipe.yaml_tree import read_tree
from distill.results.generate import GenerateInputs
from distill.results.kinds import inputs_of, metrics_of
from distill.results.measure import MeasureInputs
from distill.sources.problem_rows import source_label
from distill.storage.files import atomic_write
from distill.storage.fingerprints import sha256_of
from distill.storage.layout import LOCK_FILE
from distill.storage.run_files import SAMPLED

HEAD = """\
# What the run {name} used. `distill run {file}` repeats it under another name, and says where the results
# differ.
"""
_COMMIT_DIGITS = 40
_OF_ROUND = ("models", "problems_sha256", "chat_template_sha256", "teacher_chat_template_sha256")
Manifests = Mapping[str, Mapping[str, Any]]


def run_lock(facts: RunFacts, before: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the lock of a run, or of one round.

    Args:
        facts: of the run, with its recipe as it was run.
        before: the existing lock, for commits of datasets that are not loaded again.
    """
    recipe, manifests = facts.recipe, facts.manifests
    pinned = _pinned(recipe, facts, _pins(before))
    template = facts.files.student / "chat_template.jinja"
    sampled = inputs_of(manifests, GenerateInputs)
    tree = pinned.model_dump(mode="json")
    return {
        LOCK_KEY: LOCK_VERSION,
        "distill": __version__,
        "recipe": tree,
        "models": _models(recipe, facts),
        "datasets": [
            {
                "source": source_label(source),
                "config": source.config,
                "split": source.split,
                "revision": source.revision,
                "recipe_revision": asked.revision,
            }
            for asked, source in zip(_hub_sources(recipe), _hub_sources(pinned), strict=True)
        ],
        "files": {name: sha256_of(Path(name)) for name in file_sources(tree) if is_file(Path(name))},
        "problems_sha256": manifests.get(facts.source, {}).get("outputs", {}).get("problems.jsonl", {}).get("sha256"),
        "evaluation_sets": [
            {key: one.get(key) for key in ("name", "source", "revision", "sha256")}
            for one in facts.certificate.get("sets", [])
        ],
        "chat_template_sha256": sha256_of(template) if template.exists() else None,
        "teacher_chat_template_sha256": sampled and sampled.chat_template,
        "seeds": {
            "recipe": recipe.seed,
            # Base and student are sampled with another seed than the teacher (see distill.stages.eval).
            **({"eval": recipe.seed + 1} if recipe.eval else {}),
        },
        "stages": {name: _stage(name, manifest) for name, manifest in manifests.items() if name != PUBLISHING},
    }


def write_lock(recipe: Recipe, run_dir: Path, manifests: Manifests) -> None:
    """Write or update the lock in a run's folder; do nothing if no stage is complete."""
    if not manifests:
        return
    path = run_dir / LOCK_FILE
    lock = run_lock(RunFacts(recipe, run_dir, manifests), read_lock(path))
    atomic_write(path, HEAD.format(name=recipe.name, file=LOCK_FILE) + recipe_yaml(lock))


def write_lock_of_rounds(
    recipe: Recipe, run_dir: Path, parts: Mapping[str, Recipe], manifests: Mapping[str, Manifests]
) -> None:
    """Write or update the lock of a run with rounds; do nothing if no stage is complete.

    Args:
        recipe: the whole recipe, as it was run.
        run_dir: its folder.
        parts: each round as a recipe without rounds, as it was run.
        manifests: of each round's complete stages.
    """
    made = {name: found for name, found in manifests.items() if found}
    if not made:
        return
    path = run_dir / LOCK_FILE
    before = read_lock(path)
    facts: dict[str, RunFacts] = {}
    for name, part in parts.items():
        facts[name] = RunFacts(part, run_dir / name, manifests.get(name, {}), dict(facts))
    locks = {name: run_lock(facts[name], before) for name in made}
    pinned = {name: recipe_of_tree(locks[name]["recipe"]) if name in locks else parts[name] for name in parts}
    lock = {
        LOCK_KEY: LOCK_VERSION,
        "distill": __version__,
        "recipe": with_parts(recipe, pinned).model_dump(mode="json"),
        "datasets": _distinct(one for lock in locks.values() for one in lock["datasets"]),
        "files": {name: sha256 for lock in locks.values() for name, sha256 in lock["files"].items()},
        "evaluation_sets": _distinct(one for lock in locks.values() for one in lock["evaluation_sets"]),
        "seeds": next(iter(locks.values()))["seeds"],
        "rounds": {name: {key: lock[key] for key in _OF_ROUND} for name, lock in locks.items()},
        "stages": {f"{name}/{stage}": one for name, lock in locks.items() for stage, one in lock["stages"].items()},
    }
    atomic_write(path, HEAD.format(name=recipe.name, file=LOCK_FILE) + recipe_yaml(lock))


def _distinct(entries: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for one in entries:
        if one not in found:
            found.append(one)
    return found


def read_lock(path: Path) -> dict[str, Any] | None:
    """Return the lock in a file, or `None` if the file is missing, unreadable or not a lock."""
    try:
        found = read_tree(path, {})
        if LOCK_KEY not in found:
            return None
        recipe_in_lock(found, str(path))
    except RecipeError:
        return None
    return found


def _stage(name: str, manifest: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "fingerprint": manifest["fingerprint"],
        "git_commit": manifest.get("git_commit"),
        "versions": manifest.get("versions", {}),
        "outputs": manifest.get("outputs", {}),
        "results": metrics_of(name, manifest).locked(),
    }


def _models(recipe: Recipe, facts: RunFacts) -> dict[str, Any]:
    trained = facts.started_from is not None
    # The teachers of imported traces are read from the kept rows, which exist once the filter is complete.
    tells = trained if recipe.traces else SAMPLED in facts.manifests
    teachers = facts.teachers if tells else []
    measured = inputs_of(facts.manifests, MeasureInputs)
    models = [name.rpartition("@")[::2] for name in measured.models.values()] if measured is not None else []
    return {
        "student": {
            "name": facts.base if trained else local_name(find_student(recipe.student).hub_id),
            "revision": facts.base_revision if trained else None,
        },
        "teachers": [{"name": local_name(name), "revision": revision} for name, revision in teachers],
        **({"measured": [{"name": local_name(name), "revision": at} for name, at in models]} if models else {}),
    }


def _pinned(recipe: Recipe, facts: RunFacts, before: Mapping[tuple[Any, ...], str]) -> Recipe:
    """Return the recipe with the revisions that were used; local folders and served models have none."""
    changes: dict[str, Any] = {}
    if facts.started_from is not None and facts.base_is_on_hub and len(facts.base_revision) == _COMMIT_DIGITS:
        changes["student_revision"] = facts.base_revision
    if recipe.generate is not None and SAMPLED in facts.manifests:
        ((name, revision),) = facts.teachers
        if is_hub_id(name) and len(revision) == _COMMIT_DIGITS:
            changes.update(generate=recipe.generate.model_copy(update={"revision": revision}))
    changes["problems"] = [_pinned_source(source, before) for source in recipe.problems]
    changes["traces"] = [_pinned_source(source, before) for source in recipe.traces]
    if recipe.eval is not None:
        sets = [_pinned_source(source, before) for source in recipe.eval.benchmarks]
        changes.update(eval=recipe.eval.model_copy(update={"benchmarks": sets}))
    return recipe.model_copy(update=changes)


def _pinned_source(
    source: ProblemSource | TraceSource, before: Mapping[tuple[Any, ...], str]
) -> ProblemSource | TraceSource:
    if isinstance(source, BenchmarkSource) and source.baseline is not None:
        source = source.model_copy(update={"baseline": _pinned_baseline(source.baseline)})
    if not source.source.startswith("hf:"):
        return source
    key = source.source.removeprefix("hf:"), source.config, source.split, source.revision
    commit = loaded_commit(key) or before.get((source_label(source), *key[1:]))
    return source.model_copy(update={"revision": commit or source.revision})


def _pinned_baseline(baseline: Baseline) -> Baseline:
    kind, _, name = baseline.source.partition(":")
    commit = loaded_commit((name, None, baseline.split, baseline.revision)) if kind == "hf" else None
    return baseline.model_copy(update={"revision": commit or baseline.revision})


def _pins(before: Mapping[str, Any] | None) -> dict[tuple[Any, ...], str]:
    """Return the dataset commits of an earlier lock of the run; a skipped stage loads no dataset to take them from.

    Keys are (source, configuration, split, the recipe's revision): a recipe with another revision matches none.
    """
    if before is None:
        return {}
    return {
        (one.source, one.config, one.split, one.recipe_revision): one.revision
        for one in LockShape.model_validate(dict(before)).datasets
        if one.revision is not None and len(one.revision) == _COMMIT_DIGITS
    }


def _hub_sources(recipe: Recipe) -> list[ProblemSource | TraceSource]:
    benchmarks = recipe.eval.benchmarks if recipe.eval else []
    sources: list[ProblemSource | TraceSource] = [*recipe.problems, *recipe.traces, *benchmarks]
    return [source for source in sources if source.source.startswith("hf:")]
