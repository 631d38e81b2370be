"""Stage 3: the student learns from the kept traces.

Enters: `filter/kept`. Leaves: `student/`, which vLLM and transformers load, `adapter/` with LoRA, and `metrics.jsonl`.
"""

from pathlib import Path
from typing import Any

from distill.engines.memory import visible_gpus
from distill.errors import UserError
from distill.launch import follow, run_job
from distill.ranks import Follower
from distill.stages import KEPT, STUDENT, RunContext, never_grows, nothing_to_check
from distill.store import Summary
from distill.students import LORA_LEARNING_RATE
from distill.training.job import CHECKPOINTS, TrainJob
from distill.training.layout import Layout, plan_layout

VERSION = 1
grows, check = never_grows, nothing_to_check

ADAPTER = "adapter"
METRICS = "metrics.jsonl"


def identity(run: RunContext) -> dict[str, Any]:
    """What decides the student."""
    filtered = run.finished("filter", "sft")
    if filtered["metrics"]["num_kept"] == 0:
        counts = ", ".join(f"{reason} {num}" for reason, num in filtered["metrics"]["dropped"].items())
        raise UserError(
            f"sft: the filter kept none of {filtered['metrics']['num_traces']} traces, so there is nothing to learn "
            f"from. Dropped by: {counts}. Read some in {run.run_dir / 'filter' / 'dropped'}; then loosen filter:, give "
            "the teacher examples, or take a stronger teacher."
        )
    return {
        "version": VERSION,
        "student": run.student_model.name,
        "student_revision": run.student_model.revision,
        "seed": run.recipe.seed,
        "rows": filtered["outputs"][KEPT]["sha256"],
        **run.recipe.sft.model_dump(mode="json", exclude={"compute"}),
        "learning_rate": learning_rate(run),
    }


def learning_rate(run: RunContext) -> float:
    """The recipe's peak rate, else the student's published one, else LoRA's."""
    config = run.recipe.sft
    default = LORA_LEARNING_RATE if config.method == "lora" else run.student.learning_rate
    return config.learning_rate or default


def run(run: RunContext) -> Summary:
    """Train in a child process."""
    folder = run.folder("sft").path
    config = run.recipe.sft
    job = TrainJob(
        model_name=run.student_model.name,
        model_path=str(run.student_model.path),
        chat_format=run.student.chat_format,
        stop_token=run.student.stop_token,
        learning_rate=learning_rate(run),
        rows=str(run.folder("filter").path / KEPT),
        out_dir=str(folder),
        seed=run.recipe.seed,
        config=config.model_dump(mode="json"),
    )
    layout = _layout(run)
    trained, peak = run_job(
        "train", job, folder, num_processes=layout.num_processes, is_group=layout.needs_group, leader=run.leader
    )
    num_rows = run.finished("filter", "sft")["outputs"][KEPT]["num_rows"]
    metrics = {
        "student": run.student_model.name,
        "student_revision": run.student_model.revision,
        "method": config.method,
        "num_rows": num_rows,
        "epochs": config.epochs,
        "batch_size": config.batch_size,
        "learning_rate": job.learning_rate,
        **trained,
    }
    outputs: dict[str, int | None] = {STUDENT: None, METRICS: len(trained["history"])}
    if config.method == "lora":
        outputs[ADAPTER] = None
    return Summary(metrics, outputs, peak, scratch=(CHECKPOINTS,))


def train_along(run_dir: Path, follower: Follower) -> None:
    """The stage in every process of a launch but the first: train with it, and leave everything else to it."""
    follow("train", run_dir / "sft", follower)


def _layout(run: RunContext) -> Layout:
    """Processes and how a step's rows are shared among them."""
    world_size = None if run.leader is None else run.leader.place.world_size
    return plan_layout(run.recipe.sft, len(visible_gpus()), world_size=world_size)
