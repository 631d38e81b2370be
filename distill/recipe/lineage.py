"""Checks that the results in a run were made with the current recipe, each from the current result of the stage before.

A stage's manifest records what it was made from: the whole recipe, and the hashes of the files that it names.
"""

import functools
import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from distill.errors import StoreError, UserError
from distill.models.students import find_student, hub_id_of
from distill.recipe.model import Recipe, recipe_of_tree
from distill.recipe.rl_faults import judge_of
from distill.recipe.rounds import ROUND
from distill.recipe.sources import FILE, file_sources, map_sources
from distill.recipe.steps import MAKING_MODELS, STAGE_NAMES
from distill.results.kinds import command_for
from distill.storage.fingerprints import differences, fingerprint, sha256_of
from distill.storage.layout import KEPT, STUDENT, TRACES

NUM_SHOWN = 8
MAX_VALUE_CHARS = 60
Manifests = Mapping[str, Mapping[str, Any]]

PARTS: dict[str, tuple[str, ...]] = {
    "generate": ("seed", "problems", "generate", "eval.held_out", "eval.benchmarks"),
    "import": ("traces", "eval.benchmarks"),
    "filter": ("seed", "filter", "student", "student_revision"),
    "sft": ("seed", "student", "student_revision", "sft"),
    "rl": (
        *("seed", "student", "student_revision", "problems", "rl"),
        *("filter.decontaminate", "filter.gym_min_score", "eval.held_out", "eval.benchmarks"),
    ),
    "eval": ("seed", "student", "student_revision", "eval"),
    "measure": ("seed", "eval"),
}
"""The recipe keys that affect the result of each stage."""
SPLIT = ("problems", "eval.")
"""Prefixes of keys that decide which problems are trained on and which are evaluated."""
NOT_DECIDING = ("compute", "price")
"""Keys, at any depth, that do not affect results."""
MADE = {
    "generate": "samples",
    "import": "traces",
    "filter": "rows",
    "sft": "student",
    "rl": "student",
    "eval": "scores",
    "measure": "scores",
}
"""What each stage makes, in a word."""


def stages_before(recipe: Recipe, stage: str) -> list[str]:
    """Return the stages of a recipe that a stage depends on, in order."""
    return [name for name in STAGE_NAMES[: STAGE_NAMES.index(stage)] if name in recipe.stage_names]


def command_of(recipe: Recipe, stage: str) -> str:
    """Return the command that runs a stage of a recipe, or of one round."""
    return f"distill {command_for(stage)}" + (f" --round {recipe.round_name}" if recipe.round_name is not None else "")


def files_of(recipe: Recipe) -> dict[str, str]:
    """Return the SHA-256 of each existing local file that a recipe names, by its name in the recipe."""
    paths = {f"{FILE}{name}": Path(name) for name in file_sources(recipe.model_dump(mode="json"))}
    return {name: _hash_of(path) for name, path in paths.items() if path.is_file()}


def check_lineage(
    recipe: Recipe, manifests: Manifests, before: Sequence[str], wanted_by: str, same_split: bool = False
) -> None:
    """Raise if existing results were not made with this recipe.

    Args:
        recipe: the current recipe.
        manifests: of the stages that are built on, in order. One may be missing if its folder is not here: a later
            manifest then provides the recipe.
        before: the names of all those stages, in order.
        wanted_by: the command that builds on them.
        same_split: whether the caller has checked that the traces answer this recipe's training problems; changed
            `problems` and `eval.` keys are then ignored.

    Raises:
        UserError: a stage was made with other settings.
        StoreError: a stage was made from another result of the stage before than the current one.
    """
    for place, stage in enumerate(before):
        told = next((manifests[name] for name in before[place:] if name in manifests), None)
        changed = {} if told is None else changed_settings(recipe, stage, told)
        if stage in (recipe.traces_stage, MAKING_MODELS[-1]) and (same_split or _eval_checked_split(recipe, manifests)):
            changed = {key: pair for key, pair in changed.items() if not key.startswith(SPLIT)}
        if changed:
            raise UserError(_refusal(recipe, stage, changed, wanted_by))
    for stage, source, used, current in _links(recipe, manifests):
        if used != current:
            raise StoreError(
                f"{wanted_by}: {stage} was made from another result of {source} than the current one, so its "
                f"{MADE.get(stage, 'results')} cannot be used. Make them again with "
                f"`{command_of(recipe, stage)} --force` (what is there is moved aside)."
            )


def _eval_checked_split(recipe: Recipe, manifests: Manifests) -> bool:
    """Return whether this recipe's evaluation is complete, in which case it has compared the problems themselves."""
    measured = manifests.get("eval")
    if measured is None or recipe_of_manifest(measured) is None:
        return False
    asks = recipe.traces_stage if recipe.has_traces else MAKING_MODELS[-1]
    return not any(key.startswith(SPLIT) for key in changed_settings(recipe, asks, measured))


def changed_settings(recipe: Recipe, stage: str, manifest: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the keys that affect a stage and have changed since it was made, with their old and new values.

    Files are compared by content, or by name if one of the two hashes is unknown.

    Args:
        recipe: the current recipe.
        stage: the stage whose keys are compared.
        manifest: of that stage, or of one that was made from it.
    """
    then = recipe_of_manifest(manifest)
    if then is None:
        return _changed_section(recipe, stage, manifest) if manifest.get("stage", stage) == stage else {}
    files_then, files_now = dict(manifest.get("files") or {}), files_of(recipe)
    names = [{_name(file) for file in files} for files in (files_then, files_now)]
    known = names[0] & names[1]
    before, now = (
        settings_of(one, stage, {file: sha256 for file, sha256 in files.items() if _name(file) in known})
        for one, files in ((then, files_then), (recipe, files_now))
    )
    return differences(before, now)


def settings_of(recipe: Recipe, stage: str, files: Mapping[str, str]) -> dict[str, Any]:
    """Return the part of a recipe that affects a stage.

    Args:
        recipe: the recipe.
        stage: the stage.
        files: SHA-256 of the files to compare by content.
    """
    tree = recipe.model_dump(mode="json")
    map_sources(tree, lambda file: f"{FILE}{_name(file)}" + (f" {files[file][:16]}" if file in files else ""))
    tree["student"] = find_student(recipe.student).hub_id
    if tree["generate"] is not None:
        tree["generate"]["teacher"] = hub_id_of(tree["generate"]["teacher"])
    if recipe.teacher_round is not None:
        tree["generate"]["teacher"] = f"{ROUND}{recipe.teacher_round}"
    if tree["eval"] is None:
        tree["eval"] = {"held_out": 0, "benchmarks": []}
    found: dict[str, Any] = {}
    for part in _parts_of(recipe, stage):
        section, _, key = part.partition(".")
        if key:
            found.setdefault(section, {})[key] = tree[section][key]
        else:
            found[section] = deciding(tree[section])
    if stage == "eval":  # what base and student are asked does not depend on other models
        found["eval"].pop("models", None)
    if recipe.student_round is not None and stage in MAKING_MODELS:
        found["student"] = f"{ROUND}{recipe.student_round}"
    if "sft" in found:
        own_rows = recipe.row_rounds == [recipe.round_name]
        found["sft"]["rows"] = [] if own_rows else sorted(map(str, recipe.row_rounds))
    return found


def _parts_of(recipe: Recipe, stage: str) -> tuple[str, ...]:
    """Return the keys of `PARTS` that affect a stage of this recipe."""
    if stage == "filter" and not recipe.filter.counts_student_tokens:
        return ("seed", "filter")
    if stage == MAKING_MODELS[-1] and recipe.rl is not None and judge_of(recipe) is not None:
        return (*PARTS[stage], "filter.judge")  # unless rl.reward.judge names its own
    return PARTS.get(stage, ("seed", stage))


def recipe_of_manifest(manifest: Mapping[str, Any]) -> Recipe | None:
    """Return the recipe that made a stage, or `None` if its manifest has none that this version can read."""
    try:
        return recipe_of_tree(manifest["recipe"]) if manifest.get("recipe") else None
    except (ValidationError, UserError):
        return None


def recipe_as_run(recipe: Recipe, manifests: Manifests) -> Recipe:
    """Return the recipe with the values that the complete stages were made with; as it is, if these conflict.

    Args:
        recipe: the current recipe.
        manifests: of the complete stages.
    """
    tree = recipe.model_dump(mode="json")
    for stage, manifest in manifests.items():
        then = recipe_of_manifest(manifest)
        if stage not in PARTS or then is None or not changed_settings(recipe, stage, manifest):
            continue
        made = then.model_dump(mode="json")
        for part in _parts_of(then, stage):
            section, _, key = part.partition(".")
            if not key:
                tree[section] = made[section]
            elif tree[section] and made[section]:
                tree[section][key] = made[section][key]
    try:
        return recipe_of_tree(tree)
    except ValidationError:  # the old and new parts conflict
        return recipe


def _refusal(recipe: Recipe, stage: str, changed: Mapping[str, tuple[Any, Any]], wanted_by: str) -> str:
    it, are = ("it", "is") if stage in MAKING_MODELS else ("them", "are")
    label = stage if recipe.round_name is None else f"{stage} of round {recipe.round_name}"
    head = (
        f"{wanted_by}: the recipe has changed since {label} was run, so it is not what made the "
        f"{MADE.get(stage, 'results')} that {are} here:"
    )
    way = (
        f"Put the old values back, or make {it} again with `{command_of(recipe, stage)} --force` (what no longer fits "
        "is moved aside)."
    )
    return "\n".join([head, change_lines(changed), way])


def _links(recipe: Recipe, manifests: Manifests) -> list[tuple[str, str, Any, Any]]:
    """Return (stage, stage before, hash of its input, current hash of that input) for each pair of complete stages."""
    source = manifests.get(recipe.traces_stage)
    filtered, trained, measured = (manifests.get(name) for name in ("filter", MAKING_MODELS[0], "eval"))
    links: list[tuple[str, str, Any, Any]] = []
    if source is not None and filtered is not None:
        links.append(("filter", recipe.traces_stage, filtered["identity"].get("traces"), traces_fingerprint(source)))
    # Rows of several rounds are compared by the stage's context, which knows those rounds.
    if filtered is not None and trained is not None and not isinstance(trained["identity"].get("rows"), Mapping):
        links.append(("sft", "filter", trained["identity"].get("rows"), _output(filtered, KEPT)))
    makers = [name for name in MAKING_MODELS if name in recipe.stage_names]
    for before, after in pairwise(makers):
        if before in manifests and after in manifests:
            used = manifests[after]["identity"].get("student_revision")
            links.append((after, before, used, revision_made(before, manifests[before])))
    if makers and makers[-1] in manifests and measured is not None:
        made = _output(manifests[makers[-1]], STUDENT)
        links.append(("eval", makers[-1], measured["identity"].get("student"), made))
    return links


def revision_made(stage: str, manifest: Mapping[str, Any]) -> str:
    """Return the revision of the model that a finished stage made: it tells the stage and the weights."""
    return f"{stage}@{_output(manifest, STUDENT)}"


def traces_fingerprint(generated: Mapping[str, Any]) -> str:
    """Return the SHA-256 (hex) over the traces of a finished generate or import stage, from its manifest."""
    return fingerprint({n: o["sha256"] for n, o in generated["outputs"].items() if n.startswith(f"{TRACES}/")})


def _output(manifest: Mapping[str, Any], name: str) -> str | None:
    sha256: str | None = manifest["outputs"].get(name, {}).get("sha256")
    return sha256


def _changed_section(recipe: Recipe, stage: str, manifest: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the changes since an older manifest, which has only the stage's own section."""
    section, before = getattr(recipe, stage, None), manifest.get("config")
    found: dict[str, tuple[Any, Any]] = {}
    if isinstance(section, BaseModel) and isinstance(before, Mapping) and before:
        try:
            # Validated again, so that fields added since then have their defaults.
            then = type(section).model_validate(before).model_dump(mode="json")
        except ValidationError:
            return {}
        now = section.model_dump(mode="json")
        changed = differences(deciding(then), deciding(now))
        found = {f"{stage}.{key}": pair for key, pair in changed.items()}
    if stage == "sft":
        then, now = manifest["identity"], {"seed": recipe.seed, "student": find_student(recipe.student).hub_id}
        found |= {key: (then.get(key), now[key]) for key in now if key in then and then[key] != now[key]}
    return found


def deciding(value: Any) -> Any:
    """Return a section without the keys that do not affect results, at any depth."""
    if isinstance(value, Mapping):
        return {key: deciding(one) for key, one in value.items() if key not in NOT_DECIDING}
    return [deciding(one) for one in value] if isinstance(value, list) else value


def _name(file: str) -> str:
    return Path(file.removeprefix(FILE)).name


def _hash_of(path: Path) -> str:
    """Return the SHA-256 of a file, cached by its size and modification time."""
    found = path.stat()
    return _hash_once(path, found.st_size, found.st_mtime_ns)


@functools.lru_cache(maxsize=256)
def _hash_once(path: Path, num_bytes: int, changed_ns: int) -> str:
    return sha256_of(path)


def change_lines(changed: Mapping[str, tuple[Any, Any]]) -> str:
    """Return the changes, one per line, with values as in a recipe: `  sft.epochs: 2 -> 3`."""
    shown = [f"  {key}: {_spelled(old)} -> {_spelled(new)}" for key, (old, new) in list(changed.items())[:NUM_SHOWN]]
    more = [f"  and {len(changed) - NUM_SHOWN} more"] if len(changed) > NUM_SHOWN else []
    return "\n".join([*shown, *more])


def _spelled(value: Any) -> str:
    text = "not set" if value is None else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= MAX_VALUE_CHARS else f"{text[: MAX_VALUE_CHARS - 1]}…"
