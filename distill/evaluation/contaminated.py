"""Which evaluation items are among the rows that a student was trained on.

The filter's search (`distill.filters.decontaminate`), with the items as the evaluation set and the rows as the texts.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from distill.core.records import Problem
from distill.evaluation.measured_sets import MeasuredSet
from distill.filters.decontaminate import Decontaminator
from distill.sources.evaluation_sets import make_pack
from distill.sources.problem_rows import prompt_around

MAX_ITEMS_OF_PIECE = 3
"""A piece that more items have in common is their wording, and says nothing of one of them."""
MIN_ITEMS_FOR_OPENING, MIN_OPENING_WORDS = 8, 3
"""Fewest questions, and fewest words, of what counts as an opening that all questions of a benchmark share."""


def contaminated_items(
    kept: Iterable[Path], sets: Sequence[MeasuredSet], problems: Mapping[str, Problem]
) -> dict[str, str]:
    """Return the problems that training rows repeat, with what both have in common.

    Args:
        kept: folders of the kept rows (Parquet).
        sets: the benchmarks.
        problems: by id.
    """
    items: list[tuple[str, str]] = []
    openings: list[str] = []
    for one in sets:
        questions = [question_alone(problems[name], one) for name in one.problems]
        openings.append(shared_opening(questions))
        items += zip(one.problems, (question.removeprefix(openings[-1]) for question in questions), strict=True)
    named = [(name, question) for name, question in items if any(char.isalnum() for char in question)]
    if not named:
        return {}
    search = Decontaminator([make_pack("benchmarks", named)]).search(MAX_ITEMS_OF_PIECE)
    search.add(_without(text, openings) for text in _questions(kept))
    hits = (hit for several in search.finish().hits.values() for hit in several)
    return {hit.item_id: f"{hit.kind}: {hit.matched[:200]}" for hit in hits}


def shared_opening(questions: Sequence[str]) -> str:
    """Return the words with which all questions of a benchmark begin; empty if they are few, or the questions are."""
    if len(questions) < MIN_ITEMS_FOR_OPENING:
        return ""
    first, last = min(questions), max(questions)  # what these two share, all share
    num = next((n for n, (one, other) in enumerate(zip(first, last, strict=False)) if one != other), len(first))
    whole = first[: first.rfind(" ", 0, num) + 1]
    return whole if len(whole.split()) >= MIN_OPENING_WORDS else ""


def _without(text: str, openings: Iterable[str]) -> str:
    """Return a text without the longest of the openings that it has."""
    return text[max((len(one) for one in openings if text.startswith(one)), default=0) :]


def question_alone(problem: Problem, one: MeasuredSet) -> str:
    """Return a problem's question without the template's words and the options."""
    if one.protocol.prompt is None:
        return problem.question
    before, after = prompt_around(one.protocol.prompt, problem.metadata.get("options", []), problem.tests)
    return problem.question.removeprefix(before).removesuffix(after)


def _questions(kept: Iterable[Path]) -> Iterator[str]:
    """Yield the distinct questions of the rows."""
    import pyarrow.parquet as pq

    seen: set[str] = set()
    for folder in kept:
        for file in sorted(folder.glob("*.parquet")):
            with pq.ParquetFile(file) as shard:
                for batch in shard.iter_batches(columns=["prompt"]):
                    for prompt in batch.column(0).to_pylist():
                        text = "\n\n".join(m["content"] or "" for m in prompt if m["role"] == "user")
                        if text not in seen:
                            seen.add(text)
                            yield text
