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
from distill.publish.facts import NUM_TEACHERS_SHOWN, RunFacts, is_hub_id
from distill.publish.licences import Licence
from distill.publish.markdown import Safe, front_matter, render
from distill.publish.model_card import MARKER, funnel, language_metadata, sources

TEMPLATE = "dataset_card.md.jinja"
KEPT_COLUMNS = {
    "prompt": "the question as chat messages, as the student sees it",
    "completion": "the answer as a chat message: `<think>` … `</think>`, then the final answer",
    "problem_id": "the problem's id; a hash of its content where its source has none",
    "task": "how the answer was graded",
    "source": "where the problem comes from",
    "answer": "the expected answer",
    "extracted_answer": "the final answer that was found in the completion",
    "graded_by": "what decided the grade: `rule`, `majority` or `judge`",
    "teacher": "the model that wrote the trace",
    "teacher_revision": "its revision",
    "sample_index": "number of the sample among those of its problem",
    "num_completion_tokens": "length in the teacher's tokens; null where not known",
    "num_student_tokens": "length in the student's tokens; null where not counted",
}
DROPPED_COLUMNS = {
    "prompt": "the question as chat messages",
    "text": "the trace, word for word",
    "reasons": "every reason for the drop, from the list below",
    "details": "more on some reasons, as JSON",
    "correct": "whether the answer is right; null where it could not be graded",
    "problem_id": "the problem's id",
    "sample_index": "number of the sample among those of its problem",
    "answer": "the expected answer",
    "extracted_answer": "the final answer that was found",
    "graded_by": "what decided the grade",
    "finish_reason": "`stop`, `length`, `loop` or `error`",
    "error": "what went wrong, for `error`",
    "num_completion_tokens": "length in the teacher's tokens; null where not known",
    "num_student_tokens": "length in the student's tokens; null where not counted",
    "source": "where the problem comes from",
}


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
        "size_categories": [_size(facts.filtered["num_kept"] + (num_dropped or 0))],
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
        "reasons": facts.filtered.get("reasons", {}),
        "sources": [{**row, "licence": dict(source_licences).get(row["hub"] or "", None)} for row in sources(facts)],
        "certificate": facts.certificate,
        "kept_columns": KEPT_COLUMNS,
        "dropped_columns": DROPPED_COLUMNS,
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
