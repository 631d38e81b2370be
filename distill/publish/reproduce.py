"""The published `distill/` folder, which lets others reproduce the student."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distill import __version__
from distill.core.redaction import local_name, scrub
from distill.errors import StoreError
from distill.publish.facts import RunFacts
from distill.publish.files import PublishedFile, json_file, text_file
from distill.publish.lock import read_lock, run_lock
from distill.recipe.sources import map_sources
from distill.recipe.text import recipe_yaml
from distill.storage.layout import LOCK_FILE

FOLDER = "distill"


def reproduction_files(facts: RunFacts, stages: Sequence[str]) -> list[PublishedFile]:
    """Return the files: recipe, lock, manifests of `stages`, certificate."""
    manifests = [
        json_file(f"{FOLDER}/manifests/{name}{stage}.json", one.manifests[stage])
        for name, one in [*((f"{earlier}/", one) for earlier, one in facts.earlier.items()), ("", facts)]
        for stage in stages
        if stage in one.manifests
    ]
    return [
        text_file(f"{FOLDER}/recipe.yaml", recipe_text(facts)),
        text_file(f"{FOLDER}/recipe.lock.yaml", recipe_yaml(scrub(lock(facts)))),
        *manifests,
        json_file(f"{FOLDER}/decontamination.json", public_certificate(facts.certificate)),
    ]


def recipe_text(facts: RunFacts) -> str:
    """Return the recipe with all defaults written out; local files and folders are reduced to their names."""
    head = f"# As distill {__version__} ran it, every default written out. Files are named without their folders.\n"
    if facts.recipe.round_name is not None:
        return head + recipe_yaml(scrub(lock(facts)["recipe"]))
    return head + recipe_yaml(scrub(_by_name(facts.recipe.model_dump(mode="json"))))


def lock(facts: RunFacts) -> dict[str, Any]:
    """Return the run's lock; local files and folders are reduced to their names."""
    if facts.recipe.round_name is not None:  # the run has one lock, written after each step
        whole = read_lock(facts.run_dir.parent / LOCK_FILE)
        if whole is None:
            raise StoreError(f"{facts.run_dir.parent / LOCK_FILE}: gone or damaged. `distill run` writes it again.")
    else:
        whole = run_lock(facts, read_lock(facts.run_dir / LOCK_FILE))
    files = {Path(name).name: sha256 for name, sha256 in whole["files"].items()}
    return {**whole, "recipe": _by_name(whole["recipe"]), "files": files}


def _by_name(recipe: dict[str, Any]) -> dict[str, Any]:
    for part in (recipe, *recipe.get("rounds", ())):
        if part.get("student"):
            part["student"] = local_name(part["student"])
        if part.get("generate"):
            part["generate"]["teacher"] = local_name(part["generate"]["teacher"])
    map_sources(recipe, _file_by_name)
    return recipe


def public_certificate(certificate: Mapping[str, Any]) -> dict[str, Any]:
    """Return the certificate without the matched words.

    Published, the text of evaluation items would end up in training data.
    """
    hits = certificate.get("hits", {})
    return {
        **certificate,
        "hits": {
            problem: [{key: value for key, value in hit.items() if key != "matched"} for hit in own]
            for problem, own in hits.items()
        },
    }


def _file_by_name(source: str) -> str:
    kind, _, name = source.partition(":")
    return f"file:{Path(name).name}" if kind == "file" else source
