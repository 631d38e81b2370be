"""What a recipe from outside would access, and whether its content was accepted; it does not run before.

Accepted content is recorded in `~/.local/state/distill/accepted-recipes/<sha256>.json`.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.errors import RecipeError
from distill.models.hub_names import names_folder
from distill.models.students import find_student, hub_id_of
from distill.recipe.model import Recipe
from distill.recipe.sampling import SamplingCompute
from distill.recipe.sources import FILE
from distill.storage.files import atomic_write

if TYPE_CHECKING:
    from distill.recipe.remote import Fetched

MIN_HASH_CHARS = 12
USUAL_KEY = "OPENAI_API_KEY"
UPLOADING_TRL_KEYS = ("trackio_space_id", "trackio_bucket_id")
"""TRL arguments that upload training curves to the Hub."""


@dataclass(frozen=True, slots=True)
class Access:
    """Something outside the run's own folder that a recipe would access."""

    what: str
    warning: bool = False
    """Whether data leaves this machine, or something is changed elsewhere."""


def accesses(recipe: Recipe) -> list[Access]:
    """Return everything that a recipe would fetch, query, read and send."""
    found = [one for part in recipe.parts for one in _accesses(part)]
    return list(dict.fromkeys(found)) + list(_pushes(recipe))


def _accesses(recipe: Recipe) -> Iterator[Access]:
    """Yield what one round, or a recipe without rounds, would access."""
    yield from (Access(f"reads {one}") for one in _local_files(recipe))
    yield _model("student", find_student(recipe.student).hub_id)
    generate = recipe.generate
    if generate is not None and not generate.compute.base_urls and recipe.teacher_round is None:
        yield _model("teacher", hub_id_of(generate.teacher))
    yield from (Access(f"downloads the data set {name}") for name in _data_sets(recipe))
    for section, compute in _computes(recipe):
        yield from (_server(section, url, compute) for url in compute.base_urls)
    for name in recipe.rl.teachers if recipe.rl is not None else ():
        if name.startswith(("http://", "https://")):
            yield Access(f"sends answers of rl to {name.partition('#')[0]}", True)
        else:
            yield _model("teacher of rl", hub_id_of(name))
    for section, trl, tracking in _trainings(recipe):
        for key in UPLOADING_TRL_KEYS:
            if trl.get(key):
                yield Access(f"sends training's curves to {trl[key]} on the Hub ({section}.trl.{key})", True)
        if "wandb" in tracking:
            where = f"{section}.compute.tracking" if section == "sft" else f"{section}.compute.training.tracking"
            yield Access(f"sends training's curves to Weights & Biases ({where})", True)
    if recipe.sandbox.url is not None:
        yield Access(f"sends programs to {recipe.sandbox.url}, to be run there (sandbox)", True)


def _trainings(recipe: Recipe) -> Iterator[tuple[str, dict[str, Any], list[Any]]]:
    """Yield (section, TRL arguments, trackers) of each training."""
    yield "sft", recipe.sft.trl, [*recipe.sft.compute.tracking]
    if recipe.rl is not None:
        yield "rl", recipe.rl.trl, [*recipe.rl.compute.training.tracking]


def is_accepted(sha256: str) -> bool:
    """Return whether content was accepted on this machine."""
    return _note(sha256).is_file()


def accept(fetched: "Fetched") -> None:
    """Record that a recipe's content was accepted."""
    note = {
        "schema_version": 1,
        "recipe": fetched.pinned,
        "accepted_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    _note(fetched.sha256).parent.mkdir(parents=True, exist_ok=True)
    atomic_write(_note(fetched.sha256), json.dumps(note, indent=2) + "\n")


def refuse_unaccepted(fetched: "Fetched") -> None:
    """Raise if a recipe's content was not accepted.

    Raises:
        RecipeError: it was not accepted; the message says how to view and accept it.
    """
    if not is_accepted(fetched.sha256):
        raise RecipeError(
            f"{fetched.reference}: comes from outside, and nobody has looked at it on this machine yet. See what it "
            f"would do with `distill recipes show '{fetched.reference}'`; then run it with "
            f"--accept-recipe {fetched.sha256[:MIN_HASH_CHARS]}, which is remembered."
        )


def _note(sha256: str) -> Path:
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "distill" / "accepted-recipes" / f"{sha256}.json"


def _model(role: str, name: str) -> Access:
    if names_folder(name):
        return Access(f"loads the {role} from {Path(name).expanduser().resolve()}, a folder here")
    return Access(f"downloads the {role} {name} from the Hub (safetensors, no code)")


def _sources(recipe: Recipe) -> list[str]:
    benchmarks = recipe.eval.benchmarks if recipe.eval else []
    baselines = [one.baseline.source for one in benchmarks if one.baseline is not None]
    return [
        *(one.source for one in (*recipe.problems, *benchmarks)),
        *(one.source for one in recipe.traces),
        *baselines,
    ]


def _data_sets(recipe: Recipe) -> list[str]:
    names = [one.removeprefix("hf:") for one in _sources(recipe) if one.startswith("hf:")]
    named = [entry.removeprefix("hf:") for entry in recipe.filter.decontaminate if not entry.startswith(FILE)]
    return list(dict.fromkeys([*names, *named]))


def _local_files(recipe: Recipe) -> list[str]:
    names = [*_sources(recipe), *(one.problems or "" for one in recipe.traces)]
    names += [*recipe.filter.decontaminate, recipe.sft.chat_template or ""]
    for one in recipe.eval.benchmarks if recipe.eval else []:
        names += [one.judge_template or "", one.contests or ""]
    return list(dict.fromkeys(name.removeprefix(FILE) for name in names if name.startswith(FILE)))


def _computes(recipe: Recipe) -> Iterator[tuple[str, SamplingCompute]]:
    if recipe.generate is not None:
        yield "generate", recipe.generate.compute
    if recipe.filter.judge is not None:
        yield "filter.judge", recipe.filter.judge.compute
    if recipe.rl is not None and recipe.rl.reward.judge is not None and recipe.rl.reward.judge.by is not None:
        yield "rl.reward.judge", recipe.rl.reward.judge.by.compute
    if recipe.eval is not None:
        yield "eval", recipe.eval.compute
    if recipe.eval is not None and recipe.eval.judge is not None:
        yield "eval.judge", recipe.eval.judge.compute


def _server(section: str, url: str, compute: SamplingCompute) -> Access:
    name = compute.api_key_env
    said = f"sends prompts to {url} ({section})"
    if name == USUAL_KEY and not os.environ.get(name):
        return Access(f"{said}; no key, as ${name} is not set", True)
    unusual = "" if name == USUAL_KEY else f", which is not the usual ${USUAL_KEY}: is it meant for this server?"
    plain = "; unencrypted" if url.startswith("http://") else ""
    return Access(f"{said}, and with them the key in ${name}{unusual}{plain}", True)


def _pushes(recipe: Recipe) -> Iterator[Access]:
    push = recipe.push
    if push is None:
        return
    who = "private if it is new" if push.private else "PUBLIC"
    yield Access(f"uploads the student to {push.repo} on the Hub ({who})", True)
    if push.dataset is not None:
        yield Access(f"uploads the kept traces to {push.dataset} on the Hub ({who})", True)
    if push.accept_licence:
        yield Access("pushes although a licence may forbid it (push.accept_licence)", True)
    if push.replace_readme:
        yield Access("replaces a README.md that distill did not write (push.replace_readme)", True)
