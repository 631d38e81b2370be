"""Lengths, speeds and kept rows that a run folder shows so far. They replace rules of thumb in estimates."""

import json
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from distill.errors import DistillError
from distill.estimates.quantities import Range
from distill.estimates.text_tokens import TokenRate
from distill.models.students import find_student, hub_id_of
from distill.recipe.model import Recipe
from distill.results.filter import FilterMetrics
from distill.results.generate import GenerateMetrics
from distill.results.import_traces import ImportMetrics
from distill.results.kinds import stage_with
from distill.results.measure import MeasureMetrics
from distill.sampling.status import sampling_status
from distill.sources.tables import file_rows
from distill.storage.layout import LEDGER
from distill.storage.ledger import index_ledger
from distill.storage.run_files import RunFiles
from distill.storage.run_folder import StageFolder
from distill.storage.trace_store import stored_traces

QUICK_BYTES = 32 << 20
"""Larger ledgers are skipped in quick mode."""
MIN_SAMPLES = 8
"""Number of samples from which their means are used."""
LAST_STEPS = 50
SHOWN_ROWS = 500
"""Number of stored texts whose length is measured."""

MODELS = stage_with(MeasureMetrics)
NOT_LENGTHS = {"teacher", "revision", "samples_per_problem", "stop_after_correct", "price", "compute"}
NOT_TRAINING_SPEED = {"compute", "epochs", "learning_rate", "min_learning_rate_share", "warmup_share", "weight_decay"}
NOT_ANSWERS = {
    "held_out", "benchmarks", "models", "protocol", "judge", "samples_per_problem", "grade_timeout_s", "compute",
}  # fmt: skip
"""Settings that affect neither lengths nor speeds."""


@dataclass(frozen=True, slots=True)
class Sampled:
    """Lengths and speed of samples."""

    num_samples: int
    prompt_tokens: float
    """Mean per sample."""
    completion_tokens: float
    """Mean per sample."""
    tokens_per_second: float | None
    """While sampling; `None`: not recorded."""

    @property
    def are_enough(self) -> bool:
        """Return whether there are enough samples to use their means."""
        return self.num_samples >= MIN_SAMPLES

    @property
    def basis(self) -> str:
        return f"measured by this run so far: {self.num_samples:,} samples"


@dataclass(frozen=True, slots=True)
class Imported:
    """Number and length of imported traces."""

    num_traces: int
    completion_tokens: Range
    """Student tokens per trace, on average."""


@dataclass(frozen=True, slots=True)
class Kept:
    """Number and lengths of the rows that the filter kept."""

    num_rows: int
    completion_tokens: Range
    """Student tokens per completion, on average."""
    prompt_tokens: Range
    """Student tokens per prompt, on average, without the chat template's."""
    longest_tokens: float | None
    """Upper bound for the longest row; `None`: too many rows to read."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Measurements of a run; `None` where there are none yet."""

    traces: Sampled | None = None
    imported: Imported | None = None
    kept: Kept | None = None
    training_speed: float | None = None
    """Tokens per second in training."""
    answers: Sampled | None = None
    """Of the evaluation of base and student."""
    models: Mapping[str, Sampled] = field(default_factory=dict)
    """Answers of the models that are measured besides, by name."""


def measure(run_dir: Path, recipe: Recipe, rate: TokenRate, quick: bool = False) -> Measured:
    """Read the measurements of a run folder, ignoring results of other settings than the recipe's.

    Args:
        run_dir: `runs/<name>`; it need not exist.
        recipe: the planned recipe.
        rate: counts the tokens of texts whose tokens are not recorded.
        quick: skip what may be slow.
    """
    if not run_dir.is_dir():
        return Measured()
    files, source = RunFiles(run_dir), run_dir / recipe.traces_stage
    same_traces = _is_same_source(recipe, _identity(source))
    same_filter = same_traces and _agrees(recipe.filter, _identity(files.graded), {"compute", "judge"})
    same_training = _agrees(recipe.sft, _identity(files.trained), NOT_TRAINING_SPEED)
    student = find_student(recipe.student).hub_id
    same_training = same_training and (_identity(files.trained) or {}).get("student") == student
    same_eval = recipe.eval is not None and _agrees(recipe.eval, _identity(files.measured), NOT_ANSWERS)
    is_drawn = recipe.generate is not None
    return Measured(
        traces=_traces(source, quick) if same_traces and is_drawn else None,
        imported=_imported(source, rate) if same_traces and not is_drawn else None,
        kept=_kept(files, rate) if same_filter else None,
        training_speed=_training_speed(files.curve) if same_training else None,
        answers=_answers([files.answers(role) for role in ("base", "student")], quick) if same_eval else None,
        models=_model_answers(run_dir / MODELS, recipe, quick),
    )


def _identity(folder: Path) -> dict[str, Any] | None:
    try:
        return StageFolder(folder).identity
    except DistillError:
        return None


def _agrees(config: BaseModel, identity: dict[str, Any] | None, without: set[str]) -> bool:
    """Return whether a stage was made with these settings, apart from those in `without`."""
    wanted = config.model_dump(mode="json", exclude=without)
    return identity is not None and all(identity.get(key) == value for key, value in wanted.items())


def _is_same_source(recipe: Recipe, identity: dict[str, Any] | None) -> bool:
    """Return whether traces were sampled as in the recipe, or imported from as many sources with the same limits."""
    if identity is None:
        return False
    if recipe.generate is None:
        limits = [source.get("limit") for source in identity.get("traces", [])]
        return limits == [source.limit for source in recipe.traces]
    teacher = recipe.generate.teacher
    hub_id = hub_id_of(teacher)
    return identity.get("teacher") == hub_id and _agrees(recipe.generate, identity, NOT_LENGTHS)


def _manifest(folder: Path) -> dict[str, Any] | None:
    try:
        return StageFolder(folder).manifest
    except DistillError:  # damaged; the run will report it
        return None


def _traces(folder: Path, quick: bool) -> Sampled | None:
    manifest = _manifest(folder)
    if manifest is not None:
        metrics = GenerateMetrics.from_json(manifest["metrics"])
        num = metrics.num_samples
        if not num or not metrics.num_completion_tokens:
            return None
        speed = metrics.tokens_per_second
        return Sampled(num, metrics.num_prompt_tokens / num, metrics.num_completion_tokens / num, speed)
    if not folder.is_dir() or (quick and _is_large(folder)):
        return None
    try:
        status = sampling_status(folder)
    except (DistillError, OSError, KeyError):
        return None
    num = sum(status["finish_reasons"].values())
    if not num:
        return None
    speed = (status["live"] or {}).get("tokens_per_second") or None
    return Sampled(num, status["num_prompt_tokens"] / num, status["num_completion_tokens"] / num, speed)


def _is_large(folder: Path) -> bool:
    ledger = folder / LEDGER
    size = ledger.stat().st_size if ledger.exists() else 0
    return size + sum(file.stat().st_size for file in folder.glob("traces/*.parquet")) > QUICK_BYTES


def _imported(folder: Path, rate: TokenRate) -> Imported | None:
    manifest = _manifest(folder)
    metrics = ImportMetrics.from_json(manifest["metrics"]) if manifest else None
    if metrics is None or not metrics.num_samples:
        return None
    num = metrics.num_samples
    said = f"{num:,} traces, imported by this run"
    # The tokens of imported traces are known only if their source records them.
    if counted := metrics.num_completion_tokens:
        return Imported(num, Range.exact(counted / num, said))
    texts = [trace.text for trace in islice(stored_traces(folder), SHOWN_ROWS)]
    return Imported(num, _mean_tokens(texts, rate, said))


def _kept(run: RunFiles, rate: TokenRate) -> Kept | None:
    manifest = _manifest(run.graded)
    if manifest is None:
        return None
    metrics = FilterMetrics.from_json(manifest["metrics"])
    num = metrics.num_kept
    said = f"{num:,} row{'' if num == 1 else 's'}, kept by this run"
    files = sorted(run.kept.glob("*.parquet"))
    is_little = False
    prompts: list[str] = []
    completions: list[str] = []
    longest = ""
    try:
        is_little = sum(file.stat().st_size for file in files) <= QUICK_BYTES
        for row in islice(_rows(files), None if is_little else SHOWN_ROWS):
            prompt, completion = _text(row["prompt"]), _text(row["completion"])
            longest = max(longest, prompt + completion, key=len)
            if len(prompts) < SHOWN_ROWS:
                prompts.append(prompt)
                completions.append(completion)
    except (DistillError, OSError, KeyError, TypeError):  # damaged; the run will report it
        is_little = False
    if counted := metrics.num_kept_tokens:
        tokens = Range.exact(counted / max(1, num), said)
    else:
        tokens = _mean_tokens(completions, rate, said)
    most = rate.of([longest]).high * len(longest) if is_little else None
    return Kept(num, tokens, _mean_tokens(prompts, rate, said), most)


def _rows(files: Iterable[Path]) -> Iterator[Mapping[str, Any]]:
    for file in files:
        yield from (row for _, row in file_rows(file))


def _text(messages: Any) -> str:
    return "".join(str(message["content"]) for message in messages)


def _mean_tokens(texts: Sequence[str], rate: TokenRate, basis: str) -> Range:
    """Return the mean tokens of texts."""
    mean = sum(map(len, texts)) / max(1, len(texts))
    return rate.of(texts).times(mean).because(basis)


def _training_speed(file: Path) -> float | None:
    try:
        with file.open() as stream:
            lines = deque(stream, LAST_STEPS)
        speeds = [json.loads(line)["tokens_per_second"] for line in lines]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return sum(speeds) / len(speeds) if speeds else None


def _model_answers(folder: Path, recipe: Recipe, quick: bool) -> dict[str, Sampled]:
    """Return the answers of each model in the folder of `measure`."""
    identity = _identity(folder)
    models = (identity or {}).get("models")
    if recipe.eval is None or not _agrees(recipe.eval, identity, NOT_ANSWERS) or not isinstance(models, Mapping):
        return {}
    found = {str(said).rpartition("@")[0]: _answers([folder / role], quick) for role, said in models.items()}
    return {name: one for name, one in found.items() if one is not None}


def _answers(folders: Iterable[Path], quick: bool) -> Sampled | None:
    num = prompt = completion = 0
    for folder in folders:
        ledger = folder / LEDGER
        if not ledger.exists() or (quick and ledger.stat().st_size > QUICK_BYTES):
            continue
        tally = index_ledger(ledger).tally
        num += tally.num_samples
        prompt += tally.num_prompt_tokens
        completion += tally.num_completion_tokens
    return Sampled(num, prompt / num, completion / num, None) if num else None
