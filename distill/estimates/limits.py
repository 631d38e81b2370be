"""Find limits of a recipe that are valid, but likely to cause trouble in another stage or on the machine."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from distill.core.plurals import counted
from distill.estimates.counts import TEMPLATE_TOKENS
from distill.estimates.machine import GPUS_A_MACHINE, busy_cores, usable_memory_gib
from distill.estimates.quantities import Range, short, span
from distill.estimates.remedies import PlanContext, ways_to_fit
from distill.estimates.stage import DONE, MEMORY
from distill.estimates.text_tokens import tokens_of
from distill.grading.code.grader import backend_of
from distill.grading.sandbox import sandbox_fails
from distill.models.students import find_student
from distill.recipe.sandbox import measured_programs, trained_programs
from distill.sources.problems import named_benchmarks

FULL_SHARE = 0.9
"""Share of memory or of a length from which a limit counts as tight."""
CONTEXT_SHARE = 0.97
"""The same for a context; higher, as the longest prompt is known only roughly."""
WIDE_POINTS = 5.0
"""Half-width of a 95% interval, in points, from which it counts as wide."""
Z_95 = 1.96


@dataclass(frozen=True, slots=True)
class TightLimit:
    """A tight limit."""

    kind: str
    message: str
    """What is tight, where, and what would help."""
    stops: bool = False
    """Whether the run is expected to stop there."""

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "message": self.message, "stops": self.stops}


def tight_limits(seen: PlanContext) -> list[TightLimit]:
    """Return all tight limits, with those that stop the run first."""
    found = [
        *_data(seen),
        *_sandbox(seen),
        *_lengths(seen),
        *_memory(seen),
        *_disk(seen),
        *_gpus(seen),
        *_busy(seen),
        *_statistics(seen),
    ]
    return sorted(found, key=lambda tight: not tight.stops)


def _data(seen: PlanContext) -> Iterator[TightLimit]:
    for fault in seen.work.faults:
        yield TightLimit("data", fault, stops=True)


def _sandbox(seen: PlanContext) -> Iterator[TightLimit]:
    """Yield why programs in answers cannot be graded, where the run would be on this machine."""
    keys = [*trained_programs(seen.recipe), *measured_programs(seen.recipe)]
    if not keys or not seen.machine.is_this:
        return
    if (why := sandbox_fails(backend_of(seen.recipe.sandbox))) is not None:
        yield TightLimit("sandbox", f"{keys[0]}: answers are programs, and none can be run here: {why}.", stops=True)


def _lengths(seen: PlanContext) -> Iterator[TightLimit]:
    recipe = seen.recipe
    longest_chars = seen.work.longest_chars or seen.work.prompt_chars.high
    prompt = tokens_of(Range.exact(longest_chars)).low + TEMPLATE_TOKENS
    kept, row = recipe.filter.max_tokens, recipe.sft.max_length
    if kept is not None and kept + prompt > row:
        yield TightLimit(
            "row_length",
            f"filter.max_tokens ({kept:,}) and a prompt of {prompt:,.0f} tokens exceed sft.max_length ({row:,}): such "
            f"a row stops training. Lower filter.max_tokens to {max(1, int(row - 1.5 * prompt)):,}, or raise "
            "sft.max_length.",
        )
    elif kept is not None and kept + prompt > FULL_SHARE * row and row - kept < 64:
        yield TightLimit("row_length", f"filter.max_tokens ({kept:,}) leaves {row - kept:,} tokens of sft.max_length.")
    if recipe.generate is not None and seen.asked is not None:
        yield from _teacher_lengths(seen, prompt)
    if recipe.eval is not None:
        yield from _eval_lengths(seen, prompt)


def _teacher_lengths(seen: PlanContext, prompt: float) -> Iterator[TightLimit]:
    config, asked = seen.recipe.generate, seen.asked
    assert config is not None
    assert asked is not None
    most = config.sampling.max_tokens
    length = asked.completion_tokens
    if length.high >= FULL_SHARE * most and math.sqrt(length.low * length.high) >= 0.5 * most:
        yield TightLimit(
            "cut_off",
            f"generate.sampling.max_tokens ({most:,}) may cut off many traces ({asked.completion_tokens.basis}), which "
            "are then dropped. `distill generate --status` shows how many.",
        )
    context = seen.teacher.context if seen.teacher else None
    longest = asked.prompt_tokens.low - asked.fresh_tokens.low + prompt + most
    if context is not None and longest > CONTEXT_SHARE * context:
        yield TightLimit(
            "teacher_context",
            f"the longest prompt and generate.sampling.max_tokens ({most:,}) need {longest:,.0f} of the teacher's "
            f"{context:,} tokens of context.",
            stops=most >= context,
        )


def _eval_lengths(seen: PlanContext, prompt: float) -> Iterator[TightLimit]:
    recipe = seen.recipe
    config = recipe.eval
    assert config is not None
    longest = {name: config.sampling_of(source).max_tokens for name, source in named_benchmarks(recipe).items()}
    name = max(longest, key=lambda one: longest[one])
    most = longest[name]
    own = most != config.sampling.max_tokens
    label = f"sampling.max_tokens of {name}" if own else "eval.sampling.max_tokens"
    for model in seen.measured:
        yield from _eval_context(label, most, prompt, model.context, model.name)
    if not recipe.measures:
        return
    student = find_student(seen.recipe.student)
    context = seen.student.context
    if student.rope_theta and student.long_context and seen.recipe.sft.max_length > (student.context or 0):
        context = student.long_context
    if seen.recipe.sft.rope_theta and context is not None:
        context = max(context, seen.recipe.sft.max_length)
    yield from _eval_context(label, most, prompt, context, "the student")
    length = seen.rows.completion_tokens
    if most < length.high:
        yield TightLimit(
            "eval_cut_off",
            f"the student learns from traces of up to {length.high:,.0f} tokens, and {label} ({most:,}) "
            "would cut such answers off. Raise it.",
        )


def _eval_context(label: str, most: int, prompt: float, context: int | None, model: str) -> Iterator[TightLimit]:
    if context is not None and most + prompt > CONTEXT_SHARE * context:
        yield TightLimit(
            "eval_context",
            f"{label} ({most:,}) and the longest prompt need {most + prompt:,.0f} of {model}'s {context:,} tokens of "
            "context.",
            stops=most >= context,
        )


def _memory(seen: PlanContext) -> Iterator[TightLimit]:
    machine = seen.machine
    for name, stage in seen.stages.items():
        memory = stage.quantities.get(MEMORY)
        if memory is None or stage.standing.state == DONE:
            continue
        there = machine.gpu_gib if machine.num_gpus else usable_memory_gib(machine)
        if not math.isfinite(there) or memory.high <= FULL_SHARE * there + 1e-9:
            continue
        needed, free = span(memory), short(there)
        if free in needed.split(" to "):  # 80.1 and 79.6 would look the same
            needed, free = f"{memory.low:.1f} to {memory.high:.1f}", f"{there:.1f}"
        has = f"each GPU has {free} GiB" if machine.num_gpus else f"{free} GiB are free"
        takes = f"{name} needs {' to '.join(dict.fromkeys(needed.split(' to ')))} GiB, and {has}"
        if memory.low > there:
            yield TightLimit("memory", f"{takes}: it does not fit. {ways_to_fit(seen, stage)}", stops=True)
        elif stage.trains or not machine.num_gpus:
            yield TightLimit("memory", f"{takes} ({memory.basis}). {ways_to_fit(seen, stage)}")
        elif memory.low > FULL_SHARE * there:
            yield TightLimit("memory", f"{takes}: little room is left for a KV cache. {ways_to_fit(seen, stage)}")


def _disk(seen: PlanContext) -> Iterator[TightLimit]:
    if seen.free_gib is None or seen.disk_gib.high <= FULL_SHARE * seen.free_gib:
        return
    need = f"the run needs {span(seen.disk_gib)} GiB of disk"
    yield TightLimit(
        "disk",
        f"{need}, and {short(seen.free_gib)} GiB are free. Free some, or use another disk: --run-dir, and HF_HOME for "
        "models.",
        stops=seen.disk_gib.low > seen.free_gib,
    )


def _gpus(seen: PlanContext) -> Iterator[TightLimit]:
    machine = seen.machine
    in_one = min(machine.num_gpus, GPUS_A_MACHINE)  # sampling runs on one machine
    for name, stage in seen.stages.items():
        if not stage.samples or stage.standing.state == DONE or not stage.num_gpus:
            continue
        if stage.num_gpus > in_one:
            yield TightLimit(
                "gpus",
                f"{stage.section}.compute asks for {stage.num_gpus} GPUs of one machine, and there are {in_one}.",
                stops=True,
            )
        elif stage.num_gpus <= machine.num_gpus // 2:
            config = getattr(seen.recipe, stage.section).compute
            memory = stage.quantities.get(MEMORY)
            if memory is not None and memory.low > machine.gpu_gib:
                continue  # not even one copy fits
            replicas = in_one * config.replicas // stage.num_gpus
            setting = f"{stage.section}.compute.replicas: {replicas}"
            more = f": {setting} would use all of one machine" if replicas > 1 else ""
            uses = f"{name} uses {stage.num_gpus} of {machine.num_gpus} GPUs"
            if replicas > config.replicas or machine.num_gpus > in_one:
                yield TightLimit("idle_gpus", f"{uses}{more if replicas > config.replicas else ''}.")
    for stage in seen.stages.values():
        if stage.no_layout:
            yield TightLimit("layout", stage.no_layout, stops=True)


def _busy(seen: PlanContext) -> Iterator[TightLimit]:
    load = busy_cores(seen.machine)
    if load is not None and any(stage.standing.state != DONE for stage in seen.stages.values()):
        cores = seen.machine.num_cores
        yield TightLimit(
            "busy_cores",
            f"other processes are running (load {load:.1f} on {counted(cores, 'core')}): the times assume idle cores, "
            f"and may be {load / cores:.0f} times longer.",
        )


def half_width_points(num_problems: float, samples_per_problem: int) -> tuple[float, float]:
    """Return the half-width in points of the 95% interval of a pass@1 of 50%, where it is widest.

    Returns:
        The half-width if the samples of a problem are independent, and if they all agree.
    """
    # Wilson's interval at 50% (see distill.scores.intervals).
    widest = 100 * Z_95 * 0.5
    least, most = (num + Z_95**2 for num in (num_problems * samples_per_problem, num_problems))
    return widest / math.sqrt(least), widest / math.sqrt(most)


def _statistics(seen: PlanContext) -> Iterator[TightLimit]:
    config = seen.recipe.eval
    if config is not None:
        for name, benchmark in named_benchmarks(seen.recipe).items():
            num, k = max(1.0, seen.work.benchmarks[name].middle), config.k_of(benchmark)
            least, most = half_width_points(num, k)
            if most > WIDE_POINTS:
                width = f"{least:.1f} to {most:.1f}" if k > 1 else f"{most:.1f}"
                yield TightLimit(
                    "wide_interval",
                    f"{name}: {counted(round(num), 'problem')}, {counted(k, 'sample')} each: the 95% interval of "
                    f"pass@1 will be up to ±{width} points wide.",
                )
    if seen.recipe.trains and seen.rows.num.high < seen.recipe.sft.batch_size:
        yield TightLimit(
            "few_rows",
            f"at most {counted(round(seen.rows.num.high), 'row')} may be kept, less than one step of sft.batch_size "
            f"({seen.recipe.sft.batch_size}). More problems or samples would help, or a smaller batch.",
        )
    for source in seen.work.unknown:
        yield TightLimit(
            "unknown_size",
            f"{source} is not on this machine, and its number of rows is not known: 1,000 to 100,000 are assumed. Set "
            "its limit: to plan for a number.",
        )
