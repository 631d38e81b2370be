"""What lets others make the student again: the recipe as it was resolved, the lock, the manifests, the certificate.

Enters: `RunFacts`. Leaves: files of the folder `distill/` in a repository.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distill import __version__
from distill.problems import source_label
from distill.publish.facts import RunFacts, is_hub_id
from distill.publish.files import PublishedFile, json_file, text_file
from distill.publish.scrub import local_name, scrub
from distill.store import sha256_of

FOLDER = "distill"
LOCK_VERSION = 1


def reproduction_files(facts: RunFacts, stages: tuple[str, ...]) -> list[PublishedFile]:
    """Recipe, lock, manifests of `stages`, certificate."""
    manifests = [
        json_file(f"{FOLDER}/manifests/{stage}.json", facts.manifests[stage])
        for stage in stages
        if stage in facts.manifests
    ]
    return [
        text_file(f"{FOLDER}/recipe.yaml", recipe_text(facts)),
        text_file(f"{FOLDER}/recipe.lock.yaml", _yaml(scrub(lock(facts)))),
        *manifests,
        json_file(f"{FOLDER}/decontamination.json", public_certificate(facts.certificate)),
    ]


def recipe_text(facts: RunFacts) -> str:
    """The recipe with all its defaults written out; files and folders of this machine by their names alone."""
    recipe = facts.recipe.model_dump(mode="json")
    recipe["student"] = local_name(recipe["student"])
    if recipe["generate"]:
        recipe["generate"]["teacher"] = local_name(recipe["generate"]["teacher"])
    for source in (*recipe["problems"], *recipe["traces"], *((recipe["eval"] or {}).get("benchmarks") or [])):
        for key in ("source", "problems"):
            if source.get(key):
                source[key] = _file_by_name(source[key])
    recipe["filter"]["decontaminate"] = [_file_by_name(entry) for entry in recipe["filter"]["decontaminate"]]
    head = f"# As distill {__version__} ran it, every default written out. Files are named without their folders.\n"
    return head + _yaml(scrub(recipe))


def lock(facts: RunFacts) -> dict[str, Any]:
    """Revisions of models and data, versions, seeds: what the recipe leaves open."""
    recipe = facts.recipe
    student = facts.run_dir / "sft" / "student"
    template = student / "chat_template.jinja"
    return {
        "schema_version": LOCK_VERSION,
        "distill": __version__,
        "models": {
            "student": {"name": facts.base, "revision": facts.base_revision},
            "teachers": [{"name": local_name(name), "revision": revision} for name, revision in facts.teachers],
        },
        "datasets": [_dataset(source_label(source), source.source, source.revision) for source in facts.sources],
        "problems_sha256": facts.manifests[facts.source]["outputs"].get("problems.jsonl", {}).get("sha256"),
        "evaluation_sets": [
            {key: one.get(key) for key in ("name", "source", "revision", "sha256")}
            for one in facts.certificate.get("sets", [])
        ],
        "chat_template_sha256": sha256_of(template) if template.exists() else None,
        "seeds": {
            "recipe": recipe.seed,
            # Base and student are sampled under another seed than the teacher was (see distill.stages.eval).
            **({"eval": recipe.seed + 1} if recipe.eval else {}),
        },
        "stages": {
            name: {
                "fingerprint": manifest["fingerprint"],
                "git_commit": manifest.get("git_commit"),
                "versions": manifest.get("versions", {}),
            }
            for name, manifest in facts.manifests.items()
        },
    }


def public_certificate(certificate: Mapping[str, Any]) -> dict[str, Any]:
    """The certificate without the matched words: published, an evaluation item's text would end up in training data."""
    hits = certificate.get("hits", {})
    return {
        **certificate,
        "hits": {
            problem: [{key: value for key, value in hit.items() if key != "matched"} for hit in own]
            for problem, own in hits.items()
        },
    }


def _dataset(label: str, source: str, revision: str | None) -> dict[str, Any]:
    found = {"source": label, "revision": revision}
    if source.startswith("hf:") and revision is None and (cached := _cached_revision(source[3:])):
        found["revision_in_cache_when_published"] = cached
    return found


def _cached_revision(name: str) -> str | None:
    """The commit of a data set's main branch that was fetched last."""
    from huggingface_hub.constants import HF_HUB_CACHE

    if not is_hub_id(name):
        return None
    ref = Path(os.fspath(HF_HUB_CACHE)) / f"datasets--{name.replace('/', '--')}" / "refs" / "main"
    return ref.read_text().strip() if ref.is_file() else None


def _file_by_name(source: str) -> str:
    kind, _, name = source.partition(":")
    return f"file:{Path(name).name}" if kind == "file" else source


def _yaml(value: Any) -> str:
    import yaml

    text: str = yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=110)
    return text
