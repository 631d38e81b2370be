"""Count a recipe's problems and the length of their prompts without loading a dataset from the Hub.

Counts of loaded problems and local sources are exact. For Hub datasets they come from the local cache, the `limit` or
the dataset's card.
"""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from distill.core.plurals import counted
from distill.errors import DistillError
from distill.estimates.local_data import LocalFile, faults_of_packs, num_rows, read_problems, read_traces
from distill.estimates.quantities import Range, short, total
from distill.estimates.text_tokens import TokenRate, tokens_of
from distill.recipe.model import Recipe
from distill.recipe.problems import ProblemSource
from distill.recipe.rl import RlConfig
from distill.recipe.traces import TraceSource
from distill.sources.problems import DEFAULT_GYM_SIZE, HELD_OUT, ProblemSets, named_benchmarks

TEMPLATE_TOKENS = 20
"""Tokens that a chat template puts around a message, roughly."""

KNOWN_ROWS = {
    ("openai/gsm8k", "train"): 7_473,
    ("openai/gsm8k", "test"): 1_319,
    ("HuggingFaceH4/MATH-500", "test"): 500,
    ("HuggingFaceH4/aime_2024", "train"): 30,
    ("yentinglin/aime_2025", "train"): 30,
    ("Idavidrein/gpqa", "train"): 198,
    ("cais/mmlu", "test"): 14_042,
    ("TIGER-Lab/MMLU-Pro", "test"): 12_032,
    ("google/IFEval", "train"): 541,
    ("basicv8vc/SimpleQA", "train"): 4_326,
    ("tatsu-lab/alpaca_eval", "train"): 805,
    ("lmarena-ai/arena-hard-auto", "train"): 500,
    ("openai/openai_humaneval", "test"): 164,
    ("google-research-datasets/mbpp", "train"): 374,
    ("google-research-datasets/mbpp", "test"): 500,
    ("livecodebench/code_generation_lite", "train"): 369,
    ("open-r1/codeforces", "test"): 422,
    ("open-r1/OpenR1-Math-220k", "train"): 93_733,
    ("open-r1/Mixture-of-Thoughts", "train"): 349_317,
}
"""(dataset, split) -> rows, from the dataset cards (OpenR1-Math: configuration `default`, Mixture-of-Thoughts: `all`,
GPQA: its diamond set, LiveCodeBench: its files 3 to 5, of which a window takes some)."""
KNOWN_TRACES = {"open-r1/OpenR1-Math-220k": (2, 4)}
"""Dataset -> least and most traces per row, from its card; others have one."""
KNOWN_CONFIGS = {
    "Idavidrein/gpqa": "gpqa_diamond",
    "open-r1/OpenR1-Math-220k": "default",
    "openai/openai_humaneval": "openai_humaneval",
    "google-research-datasets/mbpp": "full",
    "open-r1/codeforces": "verifiable",
}

UNKNOWN_ROWS = Range(1_000, 100_000, "number of rows unknown: the dataset is not on this machine, and no limit is set")
ROLLOUT_LENGTH = Range(0.3, 0.9)
"""Assumed: mean length of a rollout, as a share of `rl.max_tokens`, where no trace tells more."""
TYPICAL_CHARS = Range(80, 1_200, "problems of 80 to 1,200 characters")


@dataclass(frozen=True, slots=True)
class Workload:
    """Numbers and lengths of a recipe's problems and traces."""

    train: Range
    """Problems that the teacher answers, or traces that are imported."""
    num_problems: Range
    """Distinct problems that they belong to."""
    benchmarks: dict[str, Range]
    """Evaluation problems by set, held-out ones first."""
    prompt_chars: Range
    """Characters per problem, on average."""
    longest_chars: float | None
    """Of the longest prompt; `None`: not known."""
    trace_tokens: Range | None = None
    """Student tokens per imported trace, on average; `None`: not known."""
    longest_trace_tokens: float | None = None
    """Of the longest one; `None`: not known."""
    unknown: tuple[str, ...] = ()
    """Sources with an unknown number of rows."""
    faults: tuple[str, ...] = ()
    """Errors of local files, as the run would report them."""

    @property
    def num_measured(self) -> Range:
        """Return the number of evaluation problems over all sets."""
        return total(self.benchmarks.values())

    @property
    def prompt_tokens(self) -> Range:
        """Return the tokens per prompt on average, including the chat template's."""
        return tokens_of(self.prompt_chars).plus(Range.exact(TEMPLATE_TOKENS))


def unlike_traces(config: RlConfig) -> Range:
    """Return the mean length of a rollout in tokens where no trace tells it."""
    share, most = ROLLOUT_LENGTH, config.max_tokens
    return share.times(most).because(f"{share.low:.0%} to {share.high:.0%} of rl.max_tokens ({most:,})")


def workload(
    recipe: Recipe,
    sets: ProblemSets | None = None,
    rate: TokenRate | None = None,
    quick: bool = False,
    reinforced: Mapping[str, RlConfig | None] = MappingProxyType({}),
) -> Workload:
    """Count a recipe's problems and traces.

    Args:
        recipe: the recipe.
        sets: its problems if they are loaded; left out: counted without loading.
        rate: counts the tokens of texts; left out: estimated from characters.
        quick: read less of the recipe's files, and skip those of `filter.decontaminate`.
        reinforced: `rl:` of the rounds before, whose rollouts may be imported, by name.
    """
    look = _Counted(recipe, rate or TokenRate(), quick, sets, reinforced)
    asked = look.sources(recipe.problems if sets is None else [])
    own = look.sources(recipe.traces) or asked
    measured = look.sources(recipe.eval.benchmarks if recipe.eval and sets is None else [], True)
    benchmarks = _benchmarks(recipe, sets, measured)
    num, num_problems = total(one.num for one in own), total(one.num_problems for one in own)
    if sets is not None and sets.train and not recipe.traces:
        num = num_problems = Range.exact(len(sets.train), f"{counted(len(sets.train), 'problem')}, counted")
    elif recipe.eval and recipe.eval.held_out and not recipe.traces:
        held_out = recipe.eval.held_out
        num = num_problems = Range(max(1.0, num.low - held_out), max(1.0, num.high - held_out))
    bases = dict.fromkeys(one.num.basis for one in own if one.num.basis)
    chars, longest = _prompt_chars(sets, measured if recipe.only_measures else own)
    lengths, longest_trace = _trace_tokens(recipe, own)
    return Workload(
        train=num.because(num.basis or "; ".join(bases)),
        num_problems=num_problems,
        benchmarks=benchmarks,
        prompt_chars=chars,
        longest_chars=longest,
        trace_tokens=lengths,
        longest_trace_tokens=longest_trace,
        unknown=tuple(dict.fromkeys(look.unknown)),
        faults=tuple(dict.fromkeys([*look.faults, *([] if quick else faults_of_packs(recipe))])),
    )


@dataclass(frozen=True, slots=True)
class _Source:
    """Counts of one source."""

    num: Range
    num_problems: Range
    local: LocalFile | None = None
    trace_tokens: Range | None = None
    """Per trace, on average; `None`: not known, or no traces."""
    longest_tokens: float | None = None
    """Of the longest trace."""


@dataclass
class _Counted:
    """Counts sources one by one, and collects unknown sizes and errors."""

    recipe: Recipe
    rate: TokenRate
    quick: bool
    sets: ProblemSets | None
    reinforced: Mapping[str, RlConfig | None]
    unknown: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def sources(self, sources: Sequence[ProblemSource | TraceSource], is_measured: bool = False) -> list[_Source]:
        return [self._source(source, is_measured) for source in sources]

    def _source(self, source: ProblemSource | TraceSource, is_measured: bool) -> _Source:
        kind, _, name = source.source.partition(":")
        if kind == "gym":
            number = source.limit or DEFAULT_GYM_SIZE
            num = Range(0.5 * number, number, f"{number:,} made by {source.source}, repeats dropped")
            return _Source(num, num)
        if isinstance(source, TraceSource) and (rl := self.reinforced.get(source.round or "")) is not None:
            return self._rollouts(source, rl)
        local = self._local(source, is_measured) if kind == "file" else None
        if local is not None:
            longest = local.longest_trace_tokens if local.is_whole else None
            return _Source(local.num, local.num_problems, local, local.trace_tokens, longest)
        there = num_rows(Path(name)) if kind == "file" else _cached_rows(name, source.config, source.split)
        if there is None and source.limit is None:
            if kind == "hf" or not self.faults:
                self.unknown.append(source.source)
            return _Source(UNKNOWN_ROWS, UNKNOWN_ROWS)
        label = source.source if kind == "hf" else Path(name).name
        if there is None:
            num = Range.exact(source.limit or 1, f"limit {source.limit:,} of {label}")
            return _Source(num, num)
        each = KNOWN_TRACES.get(name, (1, 1)) if isinstance(source, TraceSource) else (1, 1)
        low, high = (min(there * number, source.limit or there * number) for number in each)
        said = f"{low:,}" if low == high else f"{low:,} to {high:,}"
        return _Source(Range(low, high, f"{said} of {label}"), Range.exact(min(there, high)))

    def _rollouts(self, source: TraceSource, config: RlConfig) -> _Source:
        """Count the rollouts of a round that need not have run; up to `resample` further groups replace each."""
        groups = config.steps * config.prompts_per_step
        most = math.inf if source.limit is None else source.limit
        low, high = (min(most, groups * config.group_size * times) for times in (1, 1 + config.resample))
        there = len(self.sets.train) if self.sets is not None and self.sets.train else groups
        num = Range(low, high, f"rollouts of {source.source}")
        problems = Range.exact(min(groups, there, high))
        return _Source(num, problems, None, unlike_traces(config), config.max_tokens)

    def _local(self, source: ProblemSource | TraceSource, is_measured: bool) -> LocalFile | None:
        try:
            if isinstance(source, ProblemSource):
                return read_problems(source, self.recipe, is_measured, self.quick)
            measured = self.sets.measured_questions if self.sets else frozenset[str]()
            return read_traces(source, self.rate, measured, self.quick)
        except DistillError as error:
            self.faults.append(str(error))
        except OSError as error:
            self.faults.append(f"{source.source}: cannot be read ({error.strerror}).")
        return None


def _benchmarks(recipe: Recipe, sets: ProblemSets | None, measured: Sequence[_Source]) -> dict[str, Range]:
    if sets is not None:
        found = sets.benchmarks.items()
        return {name: Range.exact(len(one), f"{counted(len(one), 'problem')}, counted") for name, one in found}
    if recipe.eval is None:
        return {}
    held_out = recipe.eval.held_out
    benchmarks = {HELD_OUT: Range.exact(held_out, f"{held_out:,} held out")} if held_out else {}
    names = [name for name, source in named_benchmarks(recipe).items() if source is not None]
    return benchmarks | {name: one.num for name, one in zip(names, measured, strict=True)}


def _prompt_chars(sets: ProblemSets | None, own: Sequence[_Source]) -> tuple[Range, float | None]:
    """Return the mean and the greatest length of prompts, in characters."""
    asked = [] if sets is None else sets.train or [one for several in sets.benchmarks.values() for one in several]
    if asked:
        lengths = [sum(len(message["content"]) for message in problem.prompt) for problem in asked]
        mean = sum(lengths) / len(lengths)
        return Range.exact(mean, f"problems of {mean:,.0f} characters on average"), max(lengths)
    looked = [one.local for one in own if one.local is not None]
    if not looked:
        return TYPICAL_CHARS, None
    means = [local.prompt_chars for local in looked]
    is_whole = all(local.is_whole for local in looked)
    low, high = (min(means), max(means)) if is_whole else (0.8 * min(means), 1.2 * max(means))
    said = (
        f"problems of {short(low)} to {short(high)} characters" if low < high else f"problems of {low:,.0f} characters"
    )
    return Range(low, high, said), max(local.longest_prompt_chars for local in looked)


def _trace_tokens(recipe: Recipe, own: Sequence[_Source]) -> tuple[Range | None, float | None]:
    """Return the mean and the greatest length of traces in tokens; `None` unless all sources were read."""
    means = [one.trace_tokens for one in own if one.trace_tokens is not None]
    if not recipe.traces or len(means) < len(recipe.traces):
        return None, None
    mean = Range(min(one.low for one in means), max(one.high for one in means), means[0].basis)
    longest = [one.longest_tokens for one in own if one.longest_tokens is not None]
    return mean, max(longest) if len(longest) == len(means) else None


def _cached_rows(name: str, config: str | None, split: str) -> int | None:
    """Return the rows of a Hub dataset's split, from its copy in the cache or else from its card."""
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
    """Return the cache folder of the `datasets` library."""
    home = Path(os.environ.get("HF_HOME", "~/.cache/huggingface"))
    return Path(os.environ.get("HF_DATASETS_CACHE", home / "datasets")).expanduser()


def is_cached_dataset(name: str) -> bool:
    """Return whether the cache has a copy of a Hub dataset."""
    return any(_cache_folder().glob(f"{name.replace('/', '___')}/*"))


def is_cached_file(name: str, file: str, revision: str | None) -> bool:
    """Return whether the cache has a file of a dataset's repository on the Hub."""
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(name, file, repo_type="dataset", revision=revision), str)
