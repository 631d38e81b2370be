"""Load evaluation sets that training must not have seen: by name, from the Hub, or from a file.

Example:

    Pack(name="math-500", source="hf:HuggingFaceH4/MATH-500[test]", revision="6e4e…", items=(("test/algebra/1.json",
         "What is …"), …), sha256="9f2c…")

A set that cannot be loaded completely is an error: a run that skipped it would report itself clean.
"""

import difflib
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from distill.errors import ProblemError
from distill.models.hub import dataset_revision, dataset_splits, load_hub_dataset, loaded_commit
from distill.models.hub_names import split_evaluation_set
from distill.recipe.suites import load_suite, suite_names
from distill.sources.math_words import VERSION, tokens
from distill.sources.tables import Row, file_rows, hub_rows

QUESTION_COLUMNS = ("problem", "question", "Question", "prompt", "instruction")
ID_COLUMNS = ("unique_id", "id", "ID", "uuid", "Record ID", "problem_idx")


class HubSet(NamedTuple):
    """The location of a set on the Hub."""

    dataset: str
    config: str | None
    split: str
    question: str | None = None
    """Column with the question; `None`: one of `QUESTION_COLUMNS`."""
    id: str | None = None
    """Column with the item's id; `None`: one of `ID_COLUMNS`, else the row's number."""
    revision: str | None = None
    files: Sequence[str] = ()
    """Paths of the only files that are read."""


def named_set(name: str) -> HubSet | None:
    """Return the location of a suite's problems; `None` if there is no suite of this name."""
    if name not in suite_names():
        return None
    measured = load_suite(name).benchmark
    dataset, columns = measured.source.removeprefix("hf:"), measured.columns
    return HubSet(
        dataset, measured.config, measured.split, columns.problem, columns.id, measured.revision, measured.files
    )


@dataclass(frozen=True, slots=True)
class Pack:
    """The items of one evaluation set."""

    name: str
    source: str
    revision: str
    """Commit of the Hub dataset, or SHA-256 of the file; empty if unknown."""
    items: tuple[tuple[str, str], ...]
    """(id, question) of each item."""
    forms: tuple[str, ...]
    """The tokens of each question, joined by spaces (`distill.sources.math_words`)."""
    sha256: str
    """Of the set of normalised questions: independent of typesetting and order."""


def make_pack(name: str, items: Iterable[tuple[str, str]], source: str = "", revision: str = "") -> Pack:
    """Return a pack of the given (id, question) items.

    Raises:
        ProblemError: there are no items, or one has no word, number or symbol.
    """
    kept = tuple(items)
    if not kept:
        raise ProblemError(f"{name}: the evaluation set is empty, so nothing can be checked against it. Give another.")
    forms = []
    for item_id, question in kept:
        words = tokens(question)
        if not words:
            raise ProblemError(f"{name}: item {item_id} holds no question ({question!r:.60}). Remove or fix it.")
        forms.append(" ".join(words))
    digest = hashlib.sha256(
        f"normalisation {VERSION}\n".encode() + b"\n".join(sorted(form.encode(errors="replace") for form in forms))
    )
    return Pack(name, source or name, revision, kept, tuple(forms), digest.hexdigest())


def load_packs(entries: Iterable[str]) -> list[Pack]:
    """Load the packs of `filter.decontaminate`, each once.

    Raises:
        ProblemError: a name is unknown, two sets share one, or a set cannot be loaded completely.
    """
    packs: dict[str, Pack] = {}
    for entry in dict.fromkeys(entries):
        pack = load_pack(entry)
        if pack.name in packs:
            raise ProblemError(
                f"filter.decontaminate: two sets are called {pack.name!r} ({packs[pack.name].source}, {pack.source}). "
                "Rename one of the files."
            )
        packs[pack.name] = pack
    return list(packs.values())


def load_pack(entry: str) -> Pack:
    """Load one evaluation set.

    Args:
        entry: a suite that comes with distill; `file:path` (JSONL, JSON, CSV, Parquet); or `hf:org/dataset` or
            `hf:org/dataset/config`, of which the split `test` or the only split is used.

    Raises:
        ProblemError: the name is unknown, or the set cannot be loaded completely.
    """
    kind, _, name = entry.partition(":")
    if kind == "file" and name:
        return _from_file(Path(name))
    if kind == "hf" and name:
        there = _hub_place(entry)
        return _from_hub(there.dataset.rpartition("/")[2] + (f"-{there.config}" if there.config else ""), entry, there)
    if (suite := named_set(entry)) is not None:
        return _from_hub(entry, entry, suite)
    near = difflib.get_close_matches(entry.lower(), suite_names(), n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ProblemError(
        f"filter.decontaminate: unknown evaluation set {entry!r}.{hint} Known are {', '.join(suite_names())}, "
        "hf:org/dataset and file:path."
    )


def _from_file(path: Path) -> Pack:
    items = _items(f"file:{path}", file_rows(path))
    with path.open("rb") as stream:
        revision = hashlib.file_digest(stream, "sha256").hexdigest()
    return make_pack(path.stem, items, f"file:{path.name}", revision)


def _hub_place(entry: str) -> HubSet:
    try:
        dataset, config = split_evaluation_set(entry)
    except ValueError as error:
        raise ProblemError(f"filter.decontaminate: {error}.") from None
    splits = dataset_splits(dataset, config)
    split = "test" if "test" in splits else splits[0]
    if split != "test" and len(splits) > 1:
        raise ProblemError(
            f"filter.decontaminate: {entry!r} has no split 'test' but {', '.join(splits)}. "
            "Save the one that you evaluate on as JSONL and use file:path/to/it."
        )
    return HubSet(dataset, config, split)


def _from_hub(name: str, entry: str, there: HubSet) -> Pack:
    dataset, config, split, revision = there.dataset, there.config, there.split, there.revision
    source = f"hf:{dataset}" + ("/" + "+".join(there.files) if there.files else f"/{config}" if config else "")
    source += "" if there.files else f"[{split}]"
    try:
        if there.files:
            placed: Iterable[Row] = list(hub_rows(dataset, config, split, revision, there.files))
            commit = loaded_commit((dataset, config, split, revision)) or ""
        else:
            rows = load_hub_dataset(dataset, config, split, revision)
            placed = ((f"{source} row {number}", row) for number, row in enumerate(rows))
            commit = dataset_revision(rows)
    except ProblemError as error:
        raise ProblemError(
            f"filter.decontaminate: {entry} cannot be loaded, so nothing would be kept out. {error} If it is gated, "
            f"ask for access on https://huggingface.co/datasets/{dataset} and run `hf auth login`."
        ) from None
    return make_pack(name, _items(source, placed, there.question, there.id), source, commit)


def _items(
    source: str, rows: Iterable[Row], column: str | None = None, id_column: str | None = None
) -> list[tuple[str, str]]:
    items = []
    for number, (place, row) in enumerate(rows):
        found = column or next((c for c in QUESTION_COLUMNS if c in row), None)
        question = row.get(found) if found else None
        if not isinstance(question, str) or not question.strip():
            raise ProblemError(
                f"{place}: no question in {found or ' or '.join(QUESTION_COLUMNS)} (there are: {', '.join(row)}). "
                "An evaluation set must be whole: fix the row, or name the column `problem`."
            )
        items.append((_item_id(row, number, id_column), question))
    if not items:
        raise ProblemError(
            f"{source}: the evaluation set is empty, so nothing can be checked against it. Give another."
        )
    return items


def _item_id(row: Mapping[str, Any], number: int, column: str | None) -> str:
    """Return the row's own id, else its number, counted from 0."""
    own = next((str(row[c]) for c in ((column,) if column else ID_COLUMNS) if row.get(c) not in (None, "")), None)
    return own.encode(errors="replace").decode() if own else str(number)
