"""Improve a student by reinforcement learning with TRL's GRPOTrainer, on answers from our engine, and save it.

Writes `student/` (safetensors, tokenizer, chat template), with LoRA also `adapter/`, `best/`, `rollouts/` and
`metrics.jsonl`. While it runs there are also `checkpoints/`.
"""

import math
import os
import statistics
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from distill.core.progress import note
from distill.core.records import Problem
from distill.errors import ModelError, StageError
from distill.models.tokenizers import Tokenizer, load_tokenizer
from distill.recipe.rl import SAMPLED, RlConfig
from distill.results.rl import ProbePoint
from distill.results.sft import Device
from distill.sampling.job import read_problems
from distill.storage.layout import CHECKPOINTS, METRICS
from distill.training.arguments import lora_config, pick_device
from distill.training.checkpoints import newest_checkpoint, remove_unsealed
from distill.training.cpu import LoadFollowerCallback, keep_freed_memory
from distill.training.layout import Layout
from distill.training.reporter import Reporter, train_to_the_end
from distill.training.rl.arguments import policy_arguments
from distill.training.rl.check import check
from distill.training.rl.engine import RolloutEngine, start_policy_engine
from distill.training.rl.job import BEST, KEPT_CHECKPOINTS, ROLLOUTS, RlJob
from distill.training.rl.order import ProblemOrder
from distill.training.rl.policy import policy_hash
from distill.training.rl.probe import ProbeSet, is_better
from distill.training.rl.rollouts import RolloutFiles
from distill.training.rl.sampling import Sampler
from distill.training.rl.scoring import RolloutScorer
from distill.training.rl.steps import Scorer, Steps, World
from distill.training.rl.teachers import Teaching, start_teachers
from distill.training.rl.watch import Warned, warnings_of
from distill.training.run import load_model
from distill.training.sharding import environment, gathered_weights
from distill.training.student import Base, save_student

__all__ = ["RlJob", "train_rl"]

NO_NUMBER = "rl: the loss is not a number. Lower rl.learning_rate, or look at the rollouts."
SHOWN = ("divergence", "kl_teacher", "reward", "right", "entropy")
"""What the progress bar says of a step."""
LAST_SHARE = 10
"""The mean reward is over the last tenth of the steps."""


def train_rl(job: RlJob) -> dict[str, Any]:
    """Train, resuming from the newest sealed checkpoint if there is one, and save the student.

    Every process of a distributed run calls this; only the first saves the student and returns metrics.

    Returns:
        Metrics: steps, rollouts, rewards, the probe, warnings, speeds.

    Raises:
        ModelError: the student or the engine cannot be loaded.
        StageError: the loss is not a number.
        RecipeError: no problem is left within `rl.difficulty`.
        StoreError: the folder holds checkpoints of another training.
    """
    layout = Layout(**job.layout)
    if not layout.needs_group:
        # One process uses one GPU: with more, the Trainer would use torch's DataParallel, which TRL refuses.
        os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    config = RlConfig.model_validate(job.config)
    training = config.as_sft
    tokenizer = load_tokenizer(Path(job.model_path), job.chat_format, job.stop_token, job.chat_template)
    device = pick_device(training, Path(job.model_path))
    if not device.on_gpu:
        keep_freed_memory()
    os.environ.update(environment(layout, training, device.on_gpu))
    with ExitStack() as stack:
        problems = _problems(job)
        teachers = start_teachers(job.teachers, tokenizer, config.compute.sampling)
        teaching = Teaching(teachers, config, tokenizer, problems) if teachers else None
        # A divergence over the whole vocabulary is worked out with the loss.
        of_samples = teaching if config.divergence == SAMPLED else None
        scorer = stack.enter_context(RolloutScorer(job, config, tokenizer, problems, of_samples))
        run = PolicyRun(job, config, layout, device, tokenizer, scorer, teaching)
        stack.callback(run.close)
        return check(run) if job.only_check else run.train()


class PolicyRun:
    """One training: trainer, engine, steps and probe, put together."""

    def __init__(
        self,
        job: RlJob,
        config: RlConfig,
        layout: Layout,
        device: Device,
        tokenizer: Tokenizer,
        scorer: Scorer,
        teaching: Teaching | None = None,
        start_engine: Callable[..., RolloutEngine] = start_policy_engine,
    ) -> None:
        from distill.training.rl.trainer import PolicyTrainer

        self._job, self.config, self._layout, self._device, self._tokenizer = job, config, layout, device, tokenizer
        self._folder = Path(job.out_dir)
        problems = read_problems(Path(job.problems))
        held_out = read_problems(Path(job.probe)) if job.probe else {}
        training = config.as_sft
        model = load_model(job, training, device)
        rows = _rows(config)
        self.trainer = PolicyTrainer(
            config=config,
            owner=job.owner,
            num_kept=KEPT_CHECKPOINTS,
            packs=device.kernels and not device.on_gpu and device.dtype == "float32" and layout.num_processes == 1,
            model=model,
            args=policy_arguments(job, config, layout, device),
            train_dataset=rows,
            processing_class=tokenizer,
            peft_config=lora_config(training),
        )
        world = _world(self.trainer)
        if config.prompts_per_step % world.size:
            raise ModelError(
                f"rl.prompts_per_step ({config.prompts_per_step}) is not a multiple of the {world.size} processes, "
                "each of which has whole groups. Change it, or rl.compute.training.num_processes."
            )
        policy = self.trainer.accelerator.unwrap_model(self.trainer.model)
        self.engine = start_engine(job, config, policy, tokenizer, {**problems, **held_out}, device.on_gpu)
        if self.engine.corrects_sampling and config.divergence == SAMPLED:
            self.trainer.corrects_sampling()
        self.trainer.teaching = teaching
        files = RolloutFiles(self._folder / ROLLOUTS, world.rank, world.size)
        sampler = self.sampler = Sampler(self.engine.engine, tokenizer, {**problems, **held_out})
        self.scorer, self.seed = scorer, job.seed
        order = ProblemOrder(list(problems), job.seed, config.difficulty, dict(job.solved))
        exact = config.compute.resume == "exact" or (config.compute.resume == "auto" and not device.on_gpu)
        self.steps = Steps(config, job.seed, order, sampler, scorer, files, world, exact)
        self._probe = (
            ProbeSet(config.probe, held_out, job.seed, config.max_tokens, sampler, scorer, files, world)
            if held_out and config.probe.problems
            else None
        )
        self.points: list[ProbePoint] = []
        self.best: dict[str, Any] | None = None
        self.warnings: list[Warned] = []
        self.stopped_by: str | None = None
        self._policy = ""
        self.trainer.steps, self.trainer.sync = self.steps, self.sync
        self.trainer.after_sampling = self.engine.rest
        self.trainer.before_step, self.trainer.more_state = self._before_step, self._state

    def train(self) -> dict[str, Any]:
        """Train to the end, or until a detector or SIGTERM stops it; return the metrics (first process alone)."""
        trainer, config = self.trainer, self.config
        checkpoints = self._folder / CHECKPOINTS
        checkpoint = newest_checkpoint(checkpoints, self._job.owner)
        if trainer.is_world_process_zero():
            remove_unsealed(checkpoints)
        if checkpoint is not None:
            self._restore(trainer.restore(checkpoint))
            self.stopped_by = _stopped_by(self.warnings, config)
            if self.stopped_by is not None:  # it was killed while it ended
                self._end_at(int(checkpoint.name.rpartition("-")[2]))
        reporter = Reporter(
            f"rl {self._job.model_name}",
            self._folder / METRICS,
            lambda step: round(self._tokens),
            trainer.is_world_process_zero(),
            is_kept=lambda key: not key.startswith(("rewards/", "completions/", "train_")),
            shown=_shown,
        )
        if not self._device.on_gpu:
            trainer.add_callback(LoadFollowerCallback())
        trainer.add_callback(reporter)
        trainer.add_callback(_Watching(self, reporter))
        train_to_the_end(trainer, reporter, self._folder, checkpoint, NO_NUMBER)
        history = reporter.history
        self._policy = self.sync()
        self._measure(trainer.state.global_step)
        weights = gathered_weights(trainer, self._layout)
        if not trainer.is_world_process_zero():
            return {}
        save_student(trainer.model, self._tokenizer, self._folder, self._base, weights)
        last = history[-max(1, len(history) // LAST_SHARE) :]
        rewards = [entry["reward"] for entry in last if "reward" in entry]
        seconds = sum(entry.get("sampling_seconds", 0.0) for entry in history)
        num_tokens = sum(entry.get("sampled_tokens", 0.0) for entry in history)
        num_answers = config.prompts_per_step * config.group_size
        return {
            "num_steps": trainer.state.global_step,
            "num_rollouts": sum(round(num_answers + e.get("replaced", 0) * config.group_size) for e in history),
            "num_ungraded": sum(round(num_answers * entry.get("ungraded", 0.0)) for entry in history),
            "num_rollout_tokens": sum(round(num_answers * entry["tokens_mean"]) for entry in history),
            "mean_reward": statistics.fmean(rewards) if rewards else None,
            "probe": [point.to_json() for point in self.points],
            "best_step": None if self.best is None else self.best["step"],
            "warnings": [warned._asdict() for warned in self.warnings],
            "stopped_by": self.stopped_by,
            "tokens_per_second": num_tokens / seconds if seconds else None,
            "seconds_per_step": reporter.seconds / max(1, len(history) - reporter.first_step),
            "resumed_from_step": reporter.first_step or None,
            "device": self._device.to_json(),
            "gpu_peak_gib": torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else None,
        }

    def close(self) -> None:
        """End the engine."""
        self.engine.engine.close()

    @property
    def _base(self) -> Base:
        return Base(self._job.model_name, Path(self._job.model_path), self._job.model_revision)

    @property
    def _tokens(self) -> float:
        """Return the tokens of the current step's answers."""
        return self.trainer.facts.get("tokens_mean", 0.0) * (self.config.prompts_per_step * self.config.group_size)

    def _end_at(self, step: int) -> None:
        """Leave the trainer nothing to do after a step: it ends where it has as many rows as it has learnt from."""
        self.trainer.args.max_steps = step
        self.trainer.train_dataset = self.trainer.train_dataset.select(range(step * self.config.prompts_per_step))

    def sync(self) -> str:
        """Bring the weights into the engine, and return their hash."""
        policy = policy_hash(self.trainer.model, self._job.owner)
        # Every time: the engine may have slept since.
        self.engine.update(self.trainer.accelerator.unwrap_model(self.trainer.model))
        self._policy = policy
        return str(policy)

    def _before_step(self, step: int) -> None:
        config = self.config
        if config.reference_every and step and step % config.reference_every == 0:
            self.trainer.reset_reference()
        if step % config.probe.every == 0:
            self._measure(step)

    def _measure(self, step: int) -> None:
        """Ask the held-out problems, and keep the weights if they are the best so far."""
        if self._probe is None or any(point.step == step for point in self.points):
            return
        point = self._probe.measure(step, self._policy)
        self.points.append(point)
        if point.pass_at_1 is not None and self.trainer.is_world_process_zero():
            interval = f"{point.low:.1%} to {point.high:.1%}"
            note(f"rl: step {step}: {point.pass_at_1:.1%} of the held-out problems ({interval})")
        if not is_better(point, self.best):
            return
        self.best = {"step": step, "pass_at_1": point.pass_at_1}
        weights = gathered_weights(self.trainer, self._layout) if self._layout.sharding != "none" else None
        if self.trainer.is_world_process_zero():
            save_student(self.trainer.model, self._tokenizer, self._folder / BEST, self._base, weights)

    def _state(self) -> dict[str, Any]:
        """Return the measurements so far, for a checkpoint."""
        return {"points": [one.to_json() for one in self.points], "best": self.best, "warnings": self.warnings}

    def _restore(self, state: dict[str, Any]) -> None:
        self.points = [ProbePoint.model_validate(one) for one in state["points"]]
        self.best = state["best"]
        self.warnings = [Warned(*one) for one in state["warnings"]]


class _Watching(TrainerCallback):  # type: ignore[misc]
    """Callback that says what the detectors find, and ends training if the recipe asks for that."""

    def __init__(self, run: PolicyRun, reporter: Reporter) -> None:
        self._run, self._reporter = run, reporter

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        history = self._reporter.history
        if history and not math.isfinite(history[-1].get("loss", 0.0)):
            raise StageError(NO_NUMBER)  # before a checkpoint of it is saved
        run = self._run
        weights = run.config.reward.weights if run.config.uses_rewards else {}
        told, points = {warned.name for warned in run.warnings}, [point.to_json() for point in run.points]
        found = [one for one in warnings_of(history, points, run.config.watch, weights) if one.name not in told]
        for one in found:
            if state.is_world_process_zero:
                note(f"rl: step {one.step}: {one.message}")
        run.warnings += found
        run.stopped_by = _stopped_by(run.warnings, run.config)
        if run.stopped_by is not None:
            control.should_training_stop = control.should_save = True


def _stopped_by(warnings: Sequence[Warned], config: RlConfig) -> str | None:
    """Return the detector that ends training, if the recipe lets one do so."""
    return warnings[0].name if warnings and config.on_warning == "stop" else None


def _shown(entry: dict[str, Any]) -> str:
    """Return what the progress bar says of a step."""
    told = [f"{name} {entry[name]:.3f}" for name in SHOWN if name in entry]
    return ", ".join([*told, f"{entry['tokens_mean']:,.0f} tokens an answer"])


def _rows(config: RlConfig) -> Any:
    """Return a data set with a row for each problem of each step: its content is not looked at."""
    from datasets import Dataset

    return Dataset.from_dict({"prompt": [""] * (config.steps * config.prompts_per_step)})


def _problems(job: RlJob) -> dict[str, Problem]:
    """Return all that may be asked, by id."""
    return read_problems(Path(job.problems)) | (read_problems(Path(job.probe)) if job.probe else {})


def _world(trainer: Any) -> World:
    from accelerate.utils import gather_object

    accelerator = trainer.accelerator
    if accelerator.num_processes == 1:
        return World()
    return World(accelerator.process_index, accelerator.num_processes, gather_object)
