"""How many problems a recipe has, and how long their prompts are, without loading a dataset from the Hub.

Enters: the recipe's sources, the run folder. Leaves: a `Workload`. Numbers are exact where the run folder or a local
source tells; of Hub datasets the local cache's own counts, the `limit`, or the dataset's card.
"""

import itertools
import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from distill.errors import DistillError
from distill.file_kinds import FILE, kind_of
from distill.foreign import foreign_traces
from distill.planning.quantities import Range, total
from distill.problems import DEFAULT_GYM_SIZE, HELD_OUT, ProblemSets, benchmark_name
from distill.recipe import ProblemSource, Recipe, TraceSource
from distill.rows import file_rows
from distill.sampling_job import num_lines, num_lines_by_size

CHARS_PER_TOKEN = Range(2.5, 4.2)
"""Characters of a token in mathematics and English prose."""
TEMPLATE_TOKENS = 20
"""What a chat template puts around a message, about."""

KNOWN_ROWS = {
    ("openai/gsm8k", "train"): 7_473,
    ("openai/gsm8k", "test"): 1_319,
    ("HuggingFaceH4/MATH-500", "test"): 500,
    ("HuggingFaceH4/aime_2024", "train"): 30,
    ("yentinglin/aime_2025", "train"): 30,
    ("Idavidrein/gpqa", "train"): 198,
    ("open-r1/OpenR1-Math-220k", "train"): 93_733,
    ("open-r1/Mixture-of-Thoughts", "train"): 349_317,
}
"""(dataset, split) -> rows, as the dataset cards have them (of OpenR1-Math the `default` configuration, of
Mixture-of-Thoughts `all`, of GPQA its diamond set)."""
KNOWN_TRACES = {"open-r1/OpenR1-Math-220k": (2, 4)}
"""Data set -> how many traces a row holds, at least and at most, as its card says; others hold one."""
KNOWN_CONFIGS = {"Idavidrein/gpqa": "gpqa_diamond", "open-r1/OpenR1-Math-220k": "default"}

UNKNOWN_ROWS = Range(1_000, 100_000, "how many is not known: the dataset is not here, and no limit is set")
MAX_GYM = 5_000
MAX_FILE_BYTES = 64 << 20
"""Larger sources are counted, not loaded."""
SAMPLE_ROWS = 200
TYPICAL_CHARS = Range(80, 1_200, "problems of 80 to 1,200 characters")


@dataclass(frozen=True, slots=True)
class Workload:
    """What is asked."""

    train: Range
    """Problems that the teacher answers, or traces that are imported."""
    benchmarks: dict[str, Range]
    """Evaluation problems by set; the held-out ones come first."""
    prompt_chars: Range
    """Characters of a problem on average."""
    longest_chars: float | None
    """Of the longest prompt; `None`: not looked at."""
    is_exact: bool
    """Whether the problems were looked at themselves."""
    unknown: tuple[str, ...] = ()
    """Sources of which nobody knows how many rows they have."""

    @property
    def num_measured(self) -> Range:
        """Evaluation problems over all sets."""
        return total(self.benchmarks.values())


def workload(recipe: Recipe, sets: ProblemSets | None = None) -> Workload:
    """Count what a recipe asks.

    Args:
        recipe: the recipe.
        sets: its problems where they are loaded; left out: counted from outside.
    """
    if sets is not None and (sets.train or recipe.traces):
        return _of_sets(recipe, sets)
    return _of_sources(recipe)


def is_small_and_local(recipe: Recipe) -> bool:
    """Whether all problems lie here, and few enough to be loaded in a moment."""
    sources = [*recipe.problems, *(recipe.eval.benchmarks if recipe.eval else [])]
    return all(_is_small(source) for source in sources)


def _is_small(source: ProblemSource) -> bool:
    kind, _, name = source.source.partition(":")
    if kind == "gym":
        return (source.limit or DEFAULT_GYM_SIZE) <= MAX_GYM
    return kind == "file" and Path(name).is_file() and Path(name).stat().st_size <= MAX_FILE_BYTES


def _of_sets(recipe: Recipe, sets: ProblemSets) -> Workload:
    lengths = [sum(len(m["content"]) for m in problem.prompt) for problem in sets.train] or [500]
    mean = sum(lengths) / len(lengths)
    train = Range.exact(len(sets.train), f"{len(sets.train):,} problems, counted")
    if recipe.traces:
        train = total(_rows_of(source) for source in recipe.traces).because("")
    return Workload(
        train=train,
        benchmarks={
            name: Range.exact(len(set_), f"{len(set_):,} problems, counted") for name, set_ in sets.benchmarks.items()
        },
        prompt_chars=Range.exact(mean, f"problems of {mean:,.0f} characters on average"),
        longest_chars=max(lengths) if sets.train else None,
        is_exact=bool(sets.train),
        unknown=tuple(source.source for source in recipe.traces if _rows_of(source) is UNKNOWN_ROWS),
    )


def _of_sources(recipe: Recipe) -> Workload:
    sources: list[ProblemSource | TraceSource] = [*recipe.problems, *recipe.traces]
    counted = [_rows_of(source) for source in sources]
    pool = total(counted)
    benchmarks: dict[str, Range] = {}
    held_out = recipe.eval.held_out if recipe.eval else 0
    if held_out:
        benchmarks[HELD_OUT] = Range.exact(held_out, f"{held_out:,} held out")
        pool = replace(pool, low=max(1.0, pool.low - held_out), high=max(1.0, pool.high - held_out))
    for source in recipe.eval.benchmarks if recipe.eval else []:
        benchmarks[benchmark_name(source)] = _rows_of(source)
    chars, longest = _sampled_chars(recipe.problems)
    bases = dict.fromkeys(one.basis for one in counted)
    return Workload(
        train=pool.because("; ".join(basis for basis in bases if basis)),
        benchmarks=benchmarks,
        prompt_chars=chars,
        longest_chars=longest,
        is_exact=False,
        unknown=tuple(
            source.source
            for source in [*sources, *(recipe.eval.benchmarks if recipe.eval else [])]
            if _rows_of(source) is UNKNOWN_ROWS
        ),
    )


def _rows_of(source: ProblemSource | TraceSource) -> Range:
    """Rows of a source, at most its `limit`."""
    kind, _, name = source.source.partition(":")
    if kind == "gym":
        number = source.limit or DEFAULT_GYM_SIZE
        return Range(0.5 * number, number, f"{number:,} made by {source.source}, repeats dropped")
    there = _lines_of(Path(name)) if kind == "file" else _cached_rows(name, source.config, source.split)
    if there is None:
        if source.limit is None:
            return UNKNOWN_ROWS
        return Range.exact(source.limit, f"limit {source.limit:,} of {source.source}")
    least, most = _traces_of_a_row(source) if isinstance(source, TraceSource) else (1.0, 1.0)
    low, high = (min(round(there * each), source.limit or math.inf) for each in (least, most))
    said = f"{low:,}" if low == high else f"{low:,} to {high:,}"
    return Range(low, high, f"{said} of {source.source if kind == 'hf' else Path(name).name}")


def _traces_of_a_row(source: TraceSource) -> tuple[float, float]:
    """How many traces a row of a source holds, at least and at most, on average; a file's first ones tell."""
    kind, _, name = source.source.partition(":")
    if kind != "file":
        return KNOWN_TRACES.get(name, (1, 1))
    try:
        first = list(itertools.islice(foreign_traces(source), SAMPLE_ROWS))
    except (DistillError, OSError):  # the run will say why it cannot be read
        return 1.0, 1.0
    each = len(first) / len({problem.id for problem, _ in first})
    return each, each


def _lines_of(path: Path) -> int | None:
    """Rows of a file; `None` where they cannot be counted quickly."""
    try:
        if kind_of(path) != FILE:
            return None
        if path.suffix == ".jsonl":
            return num_lines(path) if path.stat().st_size <= 8 * MAX_FILE_BYTES else num_lines_by_size(path)
        if path.suffix == ".parquet":
            import pyarrow.parquet as pq

            return int(pq.read_metadata(path).num_rows)
        if path.suffix == ".json" and path.stat().st_size <= MAX_FILE_BYTES:
            return sum(1 for _ in file_rows(path))
    except Exception:  # pyarrow has errors of its own; the run will name a file that cannot be read
        return None
    return None


def _cached_rows(name: str, config: str | None, split: str) -> int | None:
    """Rows of a Hub dataset's split: as its copy in the cache says, else as its card does."""
    for info in sorted(_cache_folder().glob(f"{name.replace('/', '___')}/*/*/*/dataset_info.json")):
        try:
            about: dict[str, Any] = json.loads(info.read_text())
            if config in (None, about.get("config_name")) and split in (about.get("splits") or {}):
                return int(about["splits"][split]["num_examples"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    if config not in (None, "main", "all", KNOWN_CONFIGS.get(name)):
        return None
    return KNOWN_ROWS.get((name, split))


def _cache_folder() -> Path:
    """Where `datasets` keeps what it has made ready."""
    import os

    home = Path(os.environ.get("HF_HOME", "~/.cache/huggingface"))
    return Path(os.environ.get("HF_DATASETS_CACHE", home / "datasets")).expanduser()


def is_cached_dataset(name: str) -> bool:
    """Whether a copy of a Hub dataset is here."""
    return any(_cache_folder().glob(f"{name.replace('/', '___')}/*"))


def _sampled_chars(sources: Iterable[ProblemSource]) -> tuple[Range, float | None]:
    """Mean and greatest length of questions, from the first rows of local files."""
    lengths: list[int] = []
    for source in sources:
        kind, _, name = source.source.partition(":")
        if kind != "file" or Path(name).suffix == ".json":
            continue
        try:
            rows = zip(range(SAMPLE_ROWS), file_rows(Path(name)), strict=False)
            lengths += [_question_chars(source, row) for _, (_, row) in rows]
        except (DistillError, OSError):
            continue
    if not lengths:
        return TYPICAL_CHARS, None
    mean = sum(lengths) / len(lengths)
    return Range(0.8 * mean, 1.2 * mean, f"the first {len(lengths)} problems: {mean:,.0f} characters"), max(lengths)


def _question_chars(source: ProblemSource, row: Any) -> int:
    names = (source.columns.problem, "problem", "question", "prompt", "instruction")
    question = next((row[name] for name in names if name and isinstance(row.get(name), str)), "")
    return len(question) + len(re.sub(r"\{\w+\}", "", source.template))


def tokens_of(chars: Range) -> Range:
    """Tokens of a text of so many characters."""
    return Range(chars.low / CHARS_PER_TOKEN.high, chars.high / CHARS_PER_TOKEN.low, chars.basis)
