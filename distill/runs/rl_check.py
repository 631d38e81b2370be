"""`distill rl --check`: a handful of answers of the student and their rewards, and what training will take.

Nothing is trained. Rewards that are the same for all answers to a problem teach nothing, which shows here before hours
are spent on it.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.core.formatting import mapping
from distill.core.terminal import printable
from distill.estimates.counts import workload
from distill.estimates.machine import this_machine
from distill.estimates.measured import Sampled, measure
from distill.estimates.models import model_facts
from distill.estimates.quantities import Range, duration, duration_span, span
from distill.estimates.rl_cost import RlCost, rl_quantities
from distill.estimates.stage import MEMORY, SECONDS
from distill.estimates.text_tokens import TokenRate
from distill.execution.jobs import run_job
from distill.recipe.model import Recipe
from distill.recipe.rl_faults import rl_warnings
from distill.runs.steps import chosen_run
from distill.stages import RunContext
from distill.stages.rl import JOB, prepare, rl_job, verify_inputs
from distill.storage.run_folder import only_writer
from distill.training.layout import Layout

SCRATCH = "check"
"""Folder of the check within the stage's; removed afterwards."""
FEW_VARY = 0.1
"""Share of groups with different rewards below which most of sampling would teach nothing."""
SHOWN_CHARS = 400


@dataclass(frozen=True, slots=True)
class RlCheck:
    """The result of `distill rl --check`."""

    student: str
    found: dict[str, Any]
    """What the job returned."""
    layout: Layout
    seconds: Range | None
    """Of all steps; `None`: cannot be estimated."""
    memory_gib: Range | None
    warnings: list[str]

    def to_json(self) -> dict[str, Any]:
        """Return the check as a JSON-ready dict."""
        return {
            "student": self.student,
            **self.found,
            "layout": self.layout.to_json(),
            "seconds": None if self.seconds is None else self.seconds.to_json(),
            "memory_gib": None if self.memory_gib is None else self.memory_gib.to_json(),
            "warnings": self.warnings,
        }

    def lines(self) -> list[str]:
        """Return the check for the terminal."""
        found = self.found
        shown = [*_examples(found.get("examples") or [])]
        shown += [f"{'student':<10}{self.student}"]
        answers, problems = found["num_answers"], found["num_problems"]
        shown += [f"{'answers':<10}{answers:,} to {problems:,} problems, {found['mean_tokens']:,.0f} tokens on average"]
        shown += [f"{'':<10}right {_share(found['right'])}, cut off {_share(found['truncated'])}"]
        parts = ", ".join(f"{part} {value:.3f}" for part, value in found["parts"].items())
        mean = "not known" if found["mean_reward"] is None else f"{found['mean_reward']:.3f}"
        shown += [f"{'reward':<10}{mean} on average ({parts})"]
        shown += [f"{'groups':<10}{_share(found['groups_with_variance'])} have different rewards, and teach something"]
        memory, seconds = self.memory_gib, self.seconds
        shown += [f"{'memory':<10}{'not known' if memory is None else f'{span(memory)} GiB: {memory.basis}'}"]
        estimated = "not known" if seconds is None else f"{duration_span(seconds)}: {seconds.basis}"
        hours, each = found.get("hours"), found.get("seconds_per_step")
        told = estimated if hours is None or each is None else _measured(hours, each)
        shown += [f"{'time':<10}{told}"]
        return [printable(line) for line in [*shown, *(f"Note: {warning}" for warning in self.warnings)]]


def check_rl(recipe: Recipe, runs_dir: Path, of_round: str | None = None) -> RlCheck:
    """Sample and reward a handful of answers.

    Args:
        recipe: of the run.
        runs_dir: folder of the run folder `<recipe name>/`.
        of_round: name of the round; left out: the only one with `rl:`.

    Raises:
        UserError: the stage before is not done, or the recipe cannot be used on this machine.
        StageError: the engine failed.
    """
    run_dir = runs_dir / recipe.name
    run = chosen_run(recipe, run_dir, "rl", of_round)
    with only_writer(run_dir):
        prepare(run, lambda: True)
        verify_inputs(run)
        scratch = run.folder("rl").path / SCRATCH
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        try:
            job = rl_job(run, scratch, only_check=True)
            layout = Layout(**job.layout)
            processes = layout.num_processes
            found, _ = run_job(JOB, job, scratch, num_processes=processes, is_group=layout.needs_group)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    cost = _cost(run, found)
    return RlCheck(
        job.model_name,
        found,
        layout,
        cost.quantities.get(SECONDS),
        cost.quantities.get(MEMORY),
        [*_warnings(run.recipe, found), *cost.notes],
    )


def _cost(run: RunContext, found: dict[str, Any]) -> RlCost:
    """Return what training will take, with the length and speed of the answers that were sampled."""
    recipe = run.recipe
    assert recipe.rl is not None
    student = model_facts(recipe.student, recipe.student_revision)
    rate = TokenRate(student.local.path if student.local else None)
    work = workload(recipe, run.problem_sets, rate)
    answers = Sampled(
        found["num_answers"], work.prompt_tokens.middle, found["mean_tokens"], found.get("tokens_per_second")
    )
    seen = measure(run.run_dir, recipe, rate, True)
    return rl_quantities(recipe, recipe.rl, work, None, student, this_machine(), seen, answers)


def _warnings(recipe: Recipe, found: dict[str, Any]) -> list[str]:
    """Return what in the answers makes it unlikely that training succeeds."""
    warnings = rl_warnings(recipe)
    if found["groups_with_variance"] is not None and found["groups_with_variance"] < FEW_VARY:
        warnings.append(
            f"in {_share(found['groups_with_variance'])} of the groups rewards differ, so that most answers teach "
            "nothing. Choose easier or harder problems, raise rl.group_size, or train with sft: first."
        )
    if found["truncated"] is not None and recipe.rl is not None and found["truncated"] > recipe.rl.watch.truncated:
        warnings.append(f"{_share(found['truncated'])} of the answers are cut off. Raise rl.max_tokens.")
    return warnings


def _measured(hours: float, seconds_per_step: float) -> str:
    return f"{duration(3_600 * hours)}: {seconds_per_step:.1f} s a step, from these answers and their gradients"


def _share(value: float | None) -> str:
    return "not known" if value is None else f"{value:.1%}"


def _examples(examples: list[Any]) -> list[str]:
    """Return some answers in a few lines each."""
    found = []
    for one in map(mapping, examples):
        text = " ".join(str(one.get("text", "")).split())
        text = text if len(text) <= SHOWN_CHARS else f"{text[: SHOWN_CHARS // 2]} […] {text[-SHOWN_CHARS // 2 :]}"
        found += [f"--- {one.get('problem_id', '')}: reward {one.get('reward')}", text, ""]
    return found
