"""The dataset repository's README.md.

Its front matter lets `datasets.load_dataset` find the Parquet files:

    configs:
    - config_name: default
      data_files: [{split: train, path: kept/*.parquet}]
"""

from collections.abc import Sequence
from typing import Any

from distill import __version__
from distill.core.redaction import local_name, redact
from distill.filters.rows import DROPPED_COLUMNS, KEPT_COLUMNS
from distill.publish.facts import NUM_TEACHERS_SHOWN, RunFacts, is_hub_id
from distill.publish.licences import Licence
from distill.publish.markdown import Safe, front_matter, render
from distill.publish.model_card import MARKER, funnel, language_metadata, sources

TEMPLATE = "dataset_card.md.jinja"


def dataset_card(
    facts: RunFacts,
    repo: str,
    model: str,
    teachers: Sequence[tuple[str, Licence]],
    source_licences: Sequence[tuple[str, Licence]],
    warnings: Sequence[str],
    num_dropped: int | None,
) -> str:
    """Return the card as Markdown with its front matter.

    Args:
        facts: of the run.
        repo: dataset repository.
        model: repository of the student.
        teachers: each teacher's name and licence.
        source_licences: each Hub dataset that problems or traces come from, and its licence.
        warnings: warnings about licences.
        num_dropped: rows of the configuration `dropped`; `None`: there is no such configuration.
    """
    configs = ["default"] if num_dropped is None else ["default", "dropped"]
    folders = {"default": "kept", "dropped": "dropped"}
    metadata = {
        "language": language_metadata(facts),
        "task_categories": ["text-generation"],
        "tags": ["reasoning", "distillation", "distill", "synthetic"],
        "size_categories": [_size(facts.filtered.num_kept + (num_dropped or 0))],
        "configs": [
            {"config_name": name, "data_files": [{"split": "train", "path": f"{folders[name]}/*.parquet"}]}
            for name in configs
        ],
    }
    values: dict[str, Any] = {
        "marker": Safe(MARKER),
        "name": repo.partition("/")[2],
        "repo": repo,
        "model": model,
        "description": facts.recipe.description,
        "filtered": facts.filtered,
        "funnel": funnel(facts.filtered),
        "reasons": facts.filtered.reasons,
        "sources": [{**row, "licence": dict(source_licences).get(row["hub"] or "", None)} for row in sources(facts)],
        "certificate": facts.certificate,
        "kept_columns": {name: about for name, (_, about) in KEPT_COLUMNS.items()},
        "dropped_columns": {name: about for name, (_, about) in DROPPED_COLUMNS.items()},
        "num_dropped": num_dropped,
        "teachers": [
            (local_name(name), is_hub_id(name), revision, licence)
            for (name, licence), (_, revision) in zip(
                teachers[:NUM_TEACHERS_SHOWN], facts.source_teachers[:NUM_TEACHERS_SHOWN], strict=True
            )
        ],
        "num_more_teachers": max(0, len(teachers) - NUM_TEACHERS_SHOWN),
        "warnings": warnings,
        "version": __version__,
    }
    return redact(front_matter(metadata) + render(TEMPLATE, values))


def _size(num_rows: int) -> str:
    """Return the Hub's `size_categories` value for a number of rows."""
    bounds = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
    return next((name for bound, name in bounds if num_rows < bound), "1M<n<10M" if num_rows < 10**7 else "n>10M")
