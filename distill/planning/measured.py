"""What a run folder has shown so far: lengths, speeds, shares kept. It counts for more than any rule of thumb.

Enters: a run folder, started or not. Leaves: a `Measured` whose parts are `None` where nothing is there yet.
"""

import json
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from distill.errors import DistillError
from distill.ledger import index_ledger
from distill.recipe import Recipe
from distill.status import sampling_status
from distill.store import StageFolder
from distill.students import STUDENTS, find_student
from distill.trace_store import LEDGER

QUICK_BYTES = 32 << 20
"""A larger ledger is not read where no time may be lost."""
MIN_SAMPLES = 8
"""So many samples have to be there before their mean counts."""
LAST_STEPS = 50

NOT_LENGTHS = {"teacher", "revision", "samples_per_problem", "stop_after_correct", "price", "compute"}
NOT_TRAINING_SPEED = {"compute", "epochs", "learning_rate", "min_learning_rate_share", "warmup_share", "weight_decay"}
NOT_ANSWERS = {"held_out", "benchmarks", "samples_per_problem", "grade_timeout_s", "compute"}
"""Settings that change neither lengths nor speeds."""


@dataclass(frozen=True, slots=True)
class Sampled:
    """What samples were like."""

    num_samples: int
    prompt_tokens: float
    """Mean of a sample."""
    completion_tokens: float
    """Mean of a sample."""
    tokens_per_second: float | None
    """While drawing; `None`: not noted."""

    @property
    def are_enough(self) -> bool:
        """Whether their means count."""
        return self.num_samples >= MIN_SAMPLES

    @property
    def basis(self) -> str:
        return f"measured by this run so far: {self.num_samples:,} samples"


@dataclass(frozen=True, slots=True)
class Kept:
    """What the filter has kept."""

    num_rows: int
    num_traces: int
    tokens: float
    """Completion tokens of a kept row, on average."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What is known from the run itself."""

    traces: Sampled | None = None
    kept: Kept | None = None
    training_speed: float | None = None
    """Tokens of rows that training goes through in a second."""
    answers: Sampled | None = None
    """Of the evaluation."""


def measure(run_dir: Path, recipe: Recipe, quick: bool = False) -> Measured:
    """Look at a run folder; what was made under other settings than the recipe's is left out.

    Args:
        run_dir: `runs/<name>`; it need not exist.
        recipe: what is planned.
        quick: leave out what may take more than a moment.
    """
    if not run_dir.is_dir():
        return Measured()
    source = run_dir / recipe.traces_stage
    same_traces = _is_same_source(recipe, _identity(source))
    same_filter = same_traces and _agrees(recipe.filter, _identity(run_dir / "filter"), {"compute", "judge"})
    same_training = _agrees(recipe.sft, _identity(run_dir / "sft"), NOT_TRAINING_SPEED)
    student = find_student(recipe.student).hub_id
    same_training = same_training and (_identity(run_dir / "sft") or {}).get("student") == student
    same_eval = recipe.eval is not None and _agrees(recipe.eval, _identity(run_dir / "eval"), NOT_ANSWERS)
    return Measured(
        traces=_traces(source, quick) if same_traces else None,
        kept=_kept(run_dir) if same_filter else None,
        training_speed=_training_speed(run_dir / "sft" / "metrics.jsonl") if same_training else None,
        answers=_answers(run_dir / "eval", quick) if same_eval else None,
    )


def _identity(folder: Path) -> dict[str, Any] | None:
    try:
        return StageFolder(folder).identity
    except DistillError:
        return None


def _agrees(config: BaseModel, identity: dict[str, Any] | None, without: set[str]) -> bool:
    """Whether a stage was made under these settings, some of them aside."""
    wanted = config.model_dump(mode="json", exclude=without)
    return identity is not None and all(identity.get(key) == value for key, value in wanted.items())


def _is_same_source(recipe: Recipe, identity: dict[str, Any] | None) -> bool:
    """Whether traces were drawn as the recipe draws them, or imported from as many sources with the same limits."""
    if identity is None:
        return False
    if recipe.generate is None:
        limits = [source.get("limit") for source in identity.get("traces", [])]
        return limits == [source.limit for source in recipe.traces]
    teacher = recipe.generate.teacher
    hub_id = STUDENTS[teacher].hub_id if teacher in STUDENTS else teacher
    return identity.get("teacher") == hub_id and _agrees(recipe.generate, identity, NOT_LENGTHS)


def _manifest(folder: Path) -> dict[str, Any] | None:
    try:
        return StageFolder(folder).manifest
    except DistillError:  # damaged; the run will say so
        return None


def _traces(folder: Path, quick: bool) -> Sampled | None:
    manifest = _manifest(folder)
    if manifest is not None:
        metrics = manifest["metrics"]
        num = metrics.get("num_samples", 0)
        if not num or not metrics.get("num_completion_tokens"):
            return None
        prompt = metrics.get("num_prompt_tokens", 0) / num
        speed = metrics.get("tokens_per_second")
        return Sampled(num, prompt, metrics["num_completion_tokens"] / num, speed)
    if folder.name != "generate" or not folder.is_dir() or (quick and _is_large(folder)):
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


def _kept(run_dir: Path) -> Kept | None:
    manifest = _manifest(run_dir / "filter")
    if manifest is None:
        return None
    metrics = manifest["metrics"]
    num, tokens = metrics["num_kept"], metrics.get("num_kept_tokens")
    if num and not tokens:  # of traces made elsewhere that nobody has counted
        return None
    return Kept(num, metrics["num_traces"], (tokens or 0) / max(1, num))


def _training_speed(file: Path) -> float | None:
    try:
        with file.open() as stream:
            lines = deque(stream, LAST_STEPS)
        speeds = [json.loads(line)["tokens_per_second"] for line in lines]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return sum(speeds) / len(speeds) if speeds else None


def _answers(folder: Path, quick: bool) -> Sampled | None:
    num = prompt = completion = 0
    for role in ("base", "student"):
        ledger = folder / role / LEDGER
        if not ledger.exists() or (quick and ledger.stat().st_size > QUICK_BYTES):
            continue
        tally = index_ledger(ledger).tally
        num += tally.num_samples
        prompt += tally.num_prompt_tokens
        completion += tally.num_completion_tokens
    return Sampled(num, prompt / num, completion / num, None) if num else None
