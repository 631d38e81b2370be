"""Stage 3: fine-tune the student on the kept traces.

Writes `student/` (loads in vLLM and transformers), `adapter/` (with LoRA) and `metrics.jsonl`.
"""

import math
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from distill.core.plurals import counted
from distill.errors import UserError
from distill.estimates.known import Known
from distill.estimates.machine import Machine
from distill.estimates.measured import Measured
from distill.estimates.prices import Prices
from distill.estimates.stage import PARTLY, StageEstimate, StageProgress, priced
from distill.estimates.training_cost import training_quantities
from distill.estimates.training_layouts import layout_here
from distill.execution.jobs import follow, run_job
from distill.execution.launchers import Follower
from distill.filters.nothing_kept import nothing_kept
from distill.models.rope import rope_of, rope_patch
from distill.models.students import LORA_LEARNING_RATE
from distill.models.tokenizers import template_text
from distill.recipe.lineage import command_of
from distill.results.filter import FilterMetrics
from distill.results.sft import ClosingCheck, SftMetrics
from distill.stages import RunContext, always_useful, keeps_nothing, reopen_to_train
from distill.storage.files import num_whole_lines, read_jsonl
from distill.storage.fingerprints import fingerprint
from distill.storage.layout import ADAPTER, CHECKPOINTS, KEPT, METRICS, STUDENT
from distill.storage.run_folder import Summary
from distill.training.checkpoints import set_damaged_aside
from distill.training.job import SAVE_WITHIN_S, TOKENS, TrainJob
from distill.training.layout import Layout
from distill.training.student import StudentCheck

ROWS = "rows"
"""Links to the rows of several rounds."""
VERSION = 2
SECTION = "sft"
FROM_DATASETS = ()
keeps_results, finish = keeps_nothing, always_useful
MODELS = ("base_model",)
reopen_if_lost = reopen_to_train(SECTION)


def prepare(run: RunContext, is_due: Callable[[], bool]) -> None:
    """Find the student to train."""
    _ = run.base_model  # an earlier round may not have made the student yet


def check(run: RunContext) -> list[str]:
    """Move damaged checkpoints aside and return a message for each; training resumes from the latest intact one."""
    return set_damaged_aside(run.folder("sft").path / CHECKPOINTS)


def discard_if_empty(run: RunContext) -> bool:
    """Return whether an unfinished training left neither a student nor a checkpoint."""
    folder = run.folder("sft")
    left = [folder.path / STUDENT, *(folder.path / CHECKPOINTS).glob("checkpoint-*")]
    return not folder.is_complete and not any(path.exists() for path in left)


def verify_inputs(run: RunContext) -> None:
    """Verify the rows to train on.

    Raises:
        StoreError: rows are missing, truncated or changed; the message says how to make them again.
    """
    for one in run.row_sources.values():
        command = command_of(one.recipe, "filter")
        one.verify("filter", [KEPT], "sft", f"Run `{command}`, which makes the rows again, then this command.")


def estimate(known: Known, machine: Machine, prices: Prices) -> StageEstimate | None:
    """Return what training will take, and note its layout for the limits."""
    if known.rows is None:
        return None
    quantities, notes, known.layout = training_quantities(known.recipe, known.rows, known.student, machine, known.seen)
    num_gpus = known.layout.num_processes if known.layout and machine.num_gpus else 0
    return StageEstimate(
        SECTION,
        priced(quantities, machine, num_gpus, prices),
        tuple(notes),
        num_gpus,
        trains=True,
        no_layout=notes[0] if known.layout is None else "",
    )


def standing(run: RunContext, found: StageProgress, seen: Measured, num_wanted: float) -> StageProgress:
    """Return how much of the training is left, from the step of its newest checkpoint."""
    if found.state != PARTLY:
        return found
    manifest = run.folder("filter").manifest
    numbers = [file.name.rpartition("-")[2] for file in (run.folder("sft").path / CHECKPOINTS).glob("checkpoint-*")]
    steps = max((int(number) for number in numbers if number.isdecimal()), default=0)
    if manifest is None or not steps:
        return found
    config, num_rows = run.recipe.sft, FilterMetrics.from_json(manifest["metrics"]).num_kept
    num_steps = math.ceil(math.ceil(num_rows / config.batch_size) * config.epochs)
    left = max(0.0, 1 - steps / max(1, num_steps))
    return StageProgress(PARTLY, f"resumes at step {steps:,} of {num_steps:,}", left)


def progress(folder: Path) -> dict[str, Any]:
    """Return the logged steps of an unfinished training."""
    return {"num_done": num_whole_lines(folder / METRICS), "num_wanted": None, "unit": "steps"}


def identity(run: RunContext) -> dict[str, Any]:
    """Return everything that decides the student."""
    rows = run.rows_made()
    for one in run.row_sources.values():
        metrics = FilterMetrics.from_json(one.finished("filter", "sft")["metrics"])
        if metrics.is_empty:
            raise UserError(nothing_kept(metrics, one.recipe, "sft"))
    return {
        "version": VERSION,
        "student": run.student_model.name,
        "student_revision": run.student_model.revision,
        "seed": run.recipe.seed,
        "rows": rows,
        **run.recipe.sft.model_dump(mode="json", exclude={"compute", "rows"}),
        "learning_rate": learning_rate(run),
        "chat_template": _template(run),
        "rope": _rope(run),
    }


def learning_rate(run: RunContext) -> float:
    """Return the recipe's peak learning rate, else the student's published one, or LoRA's for LoRA and QLoRA."""
    config = run.recipe.sft
    default = run.student.learning_rate if config.method == "full" else LORA_LEARNING_RATE
    return config.learning_rate or default


def _template(run: RunContext) -> str | None:
    """Return the chat template that replaces the model's own: the recipe's, else the student table's."""
    return template_text(run.recipe.sft.chat_template or run.student.template_override)


def _rope(run: RunContext) -> dict[str, Any] | None:
    """Return the change to the model's rotary embedding for rows longer than its context, if one is needed."""
    config = run.recipe.sft
    patch = rope_patch(config.max_length, run.student_model.config, run.student, config.rope_theta)
    return None if patch is None else asdict(patch)


def _context(run: RunContext) -> int | None:
    rope = _rope(run)
    return rope["context"] if rope else rope_of(run.student_model.config).context


def train_job(run: RunContext) -> TrainJob:
    """Return the job for the training processes."""
    folder, config = run.folder("sft").path, run.recipe.sft
    return TrainJob(
        model_name=run.student_model.name,
        model_path=str(run.student_model.path),
        model_revision=run.student_model.revision,
        chat_template=_template(run),
        chat_format=run.student.chat_format,
        stop_token=run.student.stop_token,
        learning_rate=learning_rate(run),
        rope=_rope(run),
        context=_context(run),
        rows=str(rows_folder(run, folder / ROWS)),
        out_dir=str(folder),
        seed=run.recipe.seed,
        owner=fingerprint(identity(run)),
        project=run.recipe.name,
        run_name="sft" if run.recipe.round_name is None else run.recipe.round_name,
        keep_checkpoints=run.recipe.push is not None and run.recipe.push.checkpoints,
        layout=layout_of(run).to_json(),
        config=config.model_dump(mode="json"),
    )


def rows_folder(run: RunContext, links: Path) -> Path:
    """Return a folder of the Parquet files to train on.

    Args:
        run: the recipe and its folder.
        links: a folder to fill with links to the files, used if they are those of several rounds.
    """
    # In the order of the rounds: the order in which `rows:` names them is not part of the identity.
    order = [*run.earlier, run.recipe.round_name]
    sources = sorted(run.row_sources.items(), key=lambda pair: order.index(pair[0]))
    kept = {str(name): one.folder("filter").path / KEPT for name, one in sources}
    if len(kept) == 1:
        return next(iter(kept.values()))
    shutil.rmtree(links, ignore_errors=True)
    links.mkdir(parents=True)
    for number, (name, folder) in enumerate(kept.items()):
        for file in sorted(folder.glob("*.parquet")):
            (links / f"{number:03d}-{name}-{file.name}").symlink_to(file.resolve())
    return links


def layout_of(run: RunContext) -> Layout:
    """Return how the processes of this machine, or of a launcher, share a step."""
    config, world_size = run.recipe.sft, None if run.leader is None else run.leader.place.world_size
    return layout_here(config, config, run.student_model.config, run.student.alias, world_size)


def run(run: RunContext) -> Summary:
    """Train in child processes, then check the saved student."""
    folder, config = run.folder("sft").path, run.recipe.sft
    job = train_job(run)
    layout = layout_of(run)
    trained, peak = run_job(
        "train", job, folder, SAVE_WITHIN_S, layout.num_processes, is_group=layout.needs_group, leader=run.leader
    )
    num_rows = sum(one.finished("filter", "sft")["outputs"][KEPT]["num_rows"] for one in run.row_sources.values())
    check = StudentCheck(
        student=str(folder / STUDENT),
        kept=job.rows,
        num_rows=num_rows,
        typical_tokens=trained["lengths"]["p95"],
        seed=run.recipe.seed,
    )
    seen, check_peak = run_job("check_student", check, folder)
    metrics = SftMetrics(
        student=run.student_model.name,
        student_revision=run.student_model.revision,
        method=config.method,
        num_rows=num_rows,
        epochs=config.epochs,
        batch_size=config.batch_size,
        learning_rate=job.learning_rate,
        **{**trained, "closing_check": seen, "history": read_jsonl(folder / METRICS)},
    )
    outputs: dict[str, int | None] = {STUDENT: None, METRICS: len(metrics.history)}
    if config.method != "full":
        outputs[ADAPTER] = None
    scratch = (TOKENS, ROWS) if job.keep_checkpoints else (TOKENS, ROWS, CHECKPOINTS)
    return Summary(metrics.to_json(), outputs, max(peak, check_peak), scratch)


def take_part(run_dir: Path, follower: Follower) -> None:
    """Take part in training as a launcher's process other than rank 0, which does everything else."""
    follow("train", run_dir / "sft", follower, SAVE_WITHIN_S)


def headline(metrics: SftMetrics) -> str:
    """Return rows, steps and loss, and how the saved student answered some training prompts."""
    rows, steps = counted(metrics.num_rows, "row"), counted(metrics.num_steps, "step")
    return f"{rows}, {steps}, loss {metrics.final_loss:.3f}" + _closing_words(metrics.closing_check)


def _closing_words(check: ClosingCheck | None) -> str:
    if check is None:
        return ""
    seen = f"thinks {check.thinks}, closes {check.closes}, answers {check.answers}, stops {check.stops}"
    warning = f". Warning: {check.warning}" if check.warning else ""
    return f"; asked {check.num_prompts} training prompts it {seen}{warning}"
