"""Estimate what reinforcement learning takes: its rollouts, as sampling, and its updates, as training."""

from dataclasses import dataclass, replace

from distill.errors import ModelError
from distill.estimates.counts import TEMPLATE_TOKENS, Workload, unlike_traces
from distill.estimates.machine import Machine
from distill.estimates.measured import Measured, Sampled
from distill.estimates.models import GIB, ModelFacts, model_facts
from distill.estimates.quantities import Range, number_of, span
from distill.estimates.sampling_cost import START_S, SamplingLoad, engine_of, sampling_quantities
from distill.estimates.stage import DISK, MEMORY, SECONDS, TOKENS
from distill.estimates.text_tokens import tokens_of
from distill.estimates.training_cost import Rows, training_quantities
from distill.estimates.training_memory import BF16, FP32
from distill.models.students import hub_id_of
from distill.recipe.model import Recipe
from distill.recipe.rl import RlConfig
from distill.recipe.sampling import SamplingCompute
from distill.recipe.sft import SftConfig
from distill.training.layout import Layout, plan_layout
from distill.training.rl.job import GPU_MEMORY_SHARE

SLOWEST = Range(1.1, 2.5)
"""Assumed: how much longer a step samples than at full speed, since it waits for its longest answer."""
PROMPT_TOKENS = 512
"""Assumed: longest prompt, for memory."""
ROLLOUT_BYTES = Range(12.0, 24.0)
"""Bytes of a rollout's token on disk: text, token ids and log-probabilities, in Parquet."""


@dataclass(frozen=True, slots=True)
class RlCost:
    """What the stage takes."""

    quantities: dict[str, Range]
    notes: list[str]
    layout: Layout | None
    """Of training; `None`: none is possible."""
    num_gpus: int


def rollout_tokens(config: RlConfig, rows: Rows | None) -> Range:
    """Return the mean length of an answer, in tokens.

    Args:
        config: `rl:`.
        rows: that the student learnt from before, whose traces its answers are like; `None`: there are none.
    """
    most = config.max_tokens
    if rows is not None:
        like = rows.completion_tokens.at_most(most)
        return like.because(f"answers like the traces; rl.max_tokens caps at {most:,}")
    return unlike_traces(config)


def trained_as(config: RlConfig, prompt_tokens: int = PROMPT_TOKENS) -> SftConfig:
    """Return the `sft:` whose updates take as much time and memory.

    Args:
        config: `rl:`.
        prompt_tokens: longest prompt.
    """
    return config.as_sft.model_copy(
        update={
            "epochs": 1.0,
            "max_length": config.max_tokens + prompt_tokens,
            "batch_size": config.prompts_per_step * config.group_size,
        }
    )


def rl_quantities(
    recipe: Recipe,
    config: RlConfig,
    work: Workload,
    rows: Rows | None,
    model: ModelFacts,
    machine: Machine,
    seen: Measured,
    answers: Sampled | None = None,
) -> RlCost:
    """Estimate tokens, time, memory and disk of sampling and training on a machine.

    Args:
        recipe: the recipe.
        config: its `rl:`.
        work: its problems.
        rows: that the student learnt from before; `None`: there are none.
        model: the student.
        machine: where it would run.
        seen: measurements of the run.
        answers: some that were sampled on this machine.
    """
    asked = _asked(config, work, rows, answers)
    compute = _sampling_of(config, machine)
    sampled, notes, num_sampling = sampling_quantities(asked, model, compute, machine, 0)
    step = SamplingLoad(
        asked.num_samples.times(1 / config.steps),
        asked.prompt_tokens,
        asked.fresh_tokens,
        asked.completion_tokens,
        asked.measured_speed,
    )
    # Few requests are in flight in a step: what the engine reaches with all of them at once would be too fast.
    of_step, _, _ = sampling_quantities(step, model, _while_awake(compute), machine, 0)
    found = {TOKENS: asked.tokens.because(_words(config, asked)), DISK: _disk(asked, model)}
    try:
        plan_layout(config, machine.num_gpus)
    except ModelError as error:
        return RlCost(found, [*notes, str(error)], None, num_sampling)
    training, more, layout = _training(recipe, config, asked, work, model, machine, seen)
    notes += [note for note in more if note not in notes]
    num_gpus = max(num_sampling, layout.num_processes if layout and machine.num_gpus else 0)
    if DISK in training:
        found[DISK] = training[DISK].plus(found[DISK])
    memory = _memory(config, sampled.get(MEMORY), training.get(MEMORY), model, machine)
    if memory is not None:
        found[MEMORY] = memory
    if SECONDS in of_step and SECONDS in training:
        sampling_s = of_step[SECONDS].times(config.steps).by(SLOWEST)
        updates_s = training[SECONDS].times(1 + _further_passes(config, model))
        start = START_S[machine.device]
        each = sampling_s.plus(updates_s).times(1 / config.steps)
        found[SECONDS] = (
            sampling_s.plus(updates_s)
            .plus(start)
            .because(f"{span(each)} s a step, {sampling_s.middle / each.middle / config.steps:.0%} of it sampling")
        )
    return RlCost(found, notes, layout, num_gpus)


def _sampling_of(config: RlConfig, machine: Machine) -> SamplingCompute:
    """Return where the answers are sampled: on GPUs, each process of training has an engine of its own."""
    compute = config.compute.sampling
    if not machine.num_gpus:
        return compute
    num = config.compute.training.num_processes or machine.num_gpus
    update = {"replicas": num * compute.replicas, "tensor_parallel": compute.tensor_parallel or 1}
    return compute.model_copy(update=update)


def _while_awake(compute: SamplingCompute) -> SamplingCompute:
    """Return the settings with the share of a GPU's memory that the engine has while it samples."""
    told = "gpu_memory_share" in compute.model_fields_set
    return compute if told else compute.model_copy(update={"gpu_memory_share": GPU_MEMORY_SHARE})


def _asked(config: RlConfig, work: Workload, rows: Rows | None, answers: Sampled | None) -> SamplingLoad:
    """Return the number and lengths of all rollouts; up to `resample` further ones replace each group."""
    num = config.steps * config.prompts_per_step * config.group_size
    probe = (config.steps // config.probe.every + 1) * config.probe.problems * config.probe.samples_per_problem
    prompt, completion = work.prompt_tokens, rollout_tokens(config, rows)
    if answers is not None:  # they grow or shrink while training
        completion = Range(0.7, 1.5, "like the answers so far").times(answers.completion_tokens)
        completion = completion.at_most(config.max_tokens)
    return SamplingLoad(
        Range(num + probe, num * (1 + config.resample) + probe),
        prompt,
        prompt.times(1 / config.group_size, 1),  # the engine may keep a group's prompt
        completion,
        None if answers is None else answers.tokens_per_second,
    )


def _words(config: RlConfig, asked: SamplingLoad) -> str:
    each = f"{config.prompts_per_step:,} problems x {config.group_size} answers a step"
    lengths = span(asked.completion_tokens)
    return f"{number_of(Range.exact(config.steps), 'step')}, {each}, {lengths} tokens: {asked.completion_tokens.basis}"


def _training(
    recipe: Recipe,
    config: RlConfig,
    asked: SamplingLoad,
    work: Workload,
    model: ModelFacts,
    machine: Machine,
    seen: Measured,
) -> tuple[dict[str, Range], list[str], Layout | None]:
    """Return what the updates take, as those of `sft` on as many rows."""
    row = asked.completion_tokens.plus(work.prompt_tokens)
    longest_prompt = tokens_of(Range.exact(work.longest_chars or 2 * work.prompt_chars.high)).high + TEMPLATE_TOKENS
    num = Range.exact(config.steps * config.prompts_per_step * config.group_size, "rollouts")
    rows = Rows(num, asked.completion_tokens, row, config.max_tokens + longest_prompt)
    like = recipe.model_copy(update={"sft": trained_as(config, int(longest_prompt))})
    return training_quantities(like, rows, model, machine, replace(seen, training_speed=None))


def _further_passes(config: RlConfig, model: ModelFacts) -> float:
    """Return the forward passes of old and reference policy and of teachers, relative to an update's time."""
    # An update is a forward pass and a backward one of two more, or of one if the base gets no gradients.
    num = 1.0 + (config.kl > 0)
    if model.num_parameters:
        num += sum(_parameters(name) for name in _teachers_here(config)) / model.num_parameters
    return num / (3 if config.method == "full" else 2)


def _teachers_here(config: RlConfig) -> list[str]:
    """Return the teachers that no server runs."""
    return [name for name in config.teachers if not name.startswith(("http://", "https://"))]


def _parameters(name: str) -> float:
    return model_facts(hub_id_of(name)).num_parameters or 0.0


def _memory(
    config: RlConfig, engine: Range | None, training: Range | None, model: ModelFacts, machine: Machine
) -> Range | None:
    """Return the GiB of engine, training, reference model and teachers together, which share each device."""
    if engine is None or training is None:
        return None
    shares = engine_of(config.compute.sampling, machine) != "vllm"  # transformers samples with the trained weights
    own = (model.weights_gib or 0.0) if shares else 0.0
    on_gpu = bool(machine.num_gpus)
    # vLLM's share of a GPU is for its cache; the least that it works with counts here.
    beside = Range.exact(max(0.0, engine.low - own)) if on_gpu else Range(max(0.0, engine.low - own), engine.high - own)
    found = training.plus(beside)
    words = ["training", "engine"]
    if config.kl > 0 and config.method == "full":  # an adapter's reference is the base without it
        bytes_each = BF16 if on_gpu else FP32
        found = found.plus(Range.exact((model.num_parameters or 0) * bytes_each / GIB))
        words.append("reference model")
    if here := _teachers_here(config):
        found = found.plus(Range.exact(sum(map(_parameters, here)) * (BF16 if on_gpu else FP32) / GIB))
        words.append("teachers" if len(here) > 1 else "teacher")
    return found.because(f"{', '.join(words)} together; {training.basis}")


def _disk(asked: SamplingLoad, model: ModelFacts) -> Range:
    """Return the GiB of the rollouts and of the best model."""
    rollouts = asked.tokens.by(ROLLOUT_BYTES).times(1 / GIB)
    return rollouts.plus(Range.exact((model.num_parameters or 0) * BF16 / GIB)).because("rollouts, two models")
