"""Estimate what sampling a model takes: lengths, speed, memory, money. Shared by generate and eval.

The speed on a GPU is a share of the roofline: a step of decoding reads the weights and the KV cache of all requests
once, or computes their products, whichever takes longer. On CPU it is a share of the cores' speed of products. Neither
is fitted; `docs/planning.md` compares them with measurements.
"""

from dataclasses import dataclass

from distill.core.plurals import counted
from distill.engines.memory import CPU_KV_SHARE, HEADROOM, pick_tensor_parallel
from distill.engines.start import pick_engine
from distill.errors import DistillError
from distill.estimates.counts import TEMPLATE_TOKENS, Workload
from distill.estimates.cpu_speed import as_sampled, core_tflops, product_speed
from distill.estimates.machine import GPUS_A_MACHINE, Machine, usable_memory_gib
from distill.estimates.measured import Sampled
from distill.estimates.models import GIB, ModelFacts, is_reasoner
from distill.estimates.prices import Prices
from distill.estimates.quantities import Range, span
from distill.estimates.stage import COST, DISK, MEMORY, SECONDS, TOKENS
from distill.estimates.text_tokens import tokens_of
from distill.recipe.generate import GenerateConfig
from distill.recipe.sampling import Sampling, SamplingCompute

REASONING = Range(2_000, 12_000, "R1-style traces of 2,000 to 12,000 tokens")
ANSWERS = Range(150, 900, "answers of 150 to 900 tokens")
LIKE_EXAMPLES = Range(0.7, 3.0)
"""Length of an answer relative to the worked examples that the teacher is shown."""
LIKE_ROWS = Range(1.0, 1.5)
"""Assumed: length of a trained model's answer relative to the rows that it learnt from; reinforcement lengthens it."""

GPU_SEQS = 256
"""Requests in flight per copy on a GPU if the recipe does not say (`distill.engines.vllm`)."""
CPU_SEQS = 128
TRANSFORMERS_SEQS = 32
FEW_SEQS = 16
"""With fewer requests in flight a GPU is mostly idle."""
GPU_REACHED = Range(0.35, 0.75)
"""Assumed: share of the roofline that vLLM reaches."""
MIXTURE_REACHED = Range(0.15, 0.5)
"""Assumed: the same for mixtures of experts."""
TRANSFORMERS_REACHED = Range(0.05, 0.25)
"""Assumed: the same for transformers."""
STEP_S = Range(0.003, 0.012)
"""Assumed: overhead of a decoding step on a GPU, in seconds: scheduling, sampling tokens."""
TRANSFORMERS_STEP_S = Range(0.02, 0.06)
PREFILL_REACHED = Range(0.3, 0.6)
"""Assumed: share of the peak that prefill reaches."""
CPU_REACHED = Range(0.4, 1.3)
"""Share of an assumed core's float32 peak that vLLM's decoding reaches; SmolLM2-135M at 400 to 840 tokens/s on 2 cores
of an AMD EPYC (Zen 5) is 0.58 to 1.22: cores with bfloat16 instructions exceed the peak of float32."""
MEASURED_REACHED = Range(0.2, 1.1)
"""The same relative to measured products; low where products are so fast that other work dominates."""
SERVED_SPEED = Range(10, 60)
"""Assumed: tokens per second of a server for each request in flight."""
IN_FLIGHT_PER_URL = 256
START_S = {"gpu": Range(60, 300), "cpu": Range(6, 60)}
"""Loading a model into an engine, in seconds; on GPUs including compilation and CUDA graphs."""
LOAD_GIB_PER_S = Range(0.3, 3.0)
DISK_BYTES_PER_TOKEN = Range(5.0, 12.0)
"""Bytes of a completion token on disk: text, reasoning and content, in the ledger and then in Parquet."""
PROCESS_GIB = Range(1.5, 3.5)
"""Memory of the processes on CPU besides the weights: Python, torch, vLLM, grading."""


@dataclass(frozen=True, slots=True)
class SamplingLoad:
    """Number and lengths of the samples."""

    num_samples: Range
    prompt_tokens: Range
    """Per sample, all of the prompt."""
    fresh_tokens: Range
    """Per sample, without the prefix that the engine caches because all samples share it."""
    completion_tokens: Range
    """Per sample."""
    measured_speed: float | None = None
    """Tokens per second that this run reached on this machine."""

    @property
    def tokens(self) -> Range:
        return self.num_samples.by(self.completion_tokens).because(self.completion_tokens.basis)


def asked_of_teacher(
    config: GenerateConfig, work: Workload, seen: Sampled | None, taught: Range | None = None
) -> SamplingLoad:
    """Return the number and lengths of the samples of generate.

    Args:
        config: `generate:`.
        work: the problems.
        seen: samples of this run, if any; they replace the usual lengths.
        taught: tokens of the rows that the teacher learnt from, if an earlier round makes it.
    """
    k = config.samples_per_problem
    least = config.stop_after_correct or k
    num = work.train.times(least, k)
    shown = sum(len(e.problem) + len(e.reasoning) + len(e.answer) for e in config.examples) + len(config.system or "")
    fresh = work.prompt_tokens
    prompt = fresh.plus(tokens_of(Range.exact(shown))).plus(Range.exact(TEMPLATE_TOKENS * len(config.examples)))
    # Computed once per problem if the prefix cache keeps the prompt, at worst for every sample.
    fresh = fresh.times(1 / k, 1)
    completion = completion_length(config.teacher, config.sampling, config)
    if taught is not None:
        most = config.sampling.max_tokens
        told = f"as the rows that the teacher learnt from, or longer; max_tokens caps at {most:,}"
        completion = taught.by(LIKE_ROWS).at_most(most).because(told)
    if seen is not None and seen.are_enough:
        prompt = Range.exact(seen.prompt_tokens, seen.basis)
        completion = Range(0.97 * seen.completion_tokens, 1.03 * seen.completion_tokens, seen.basis)
    return SamplingLoad(num, prompt, fresh, completion, seen.tokens_per_second if seen else None)


def completion_length(model: str, sampling: Sampling, generate: GenerateConfig | None = None) -> Range:
    """Return the mean length of a completion, in tokens, before any has been seen."""
    if generate is not None and generate.examples and not is_reasoner(model):
        chars = sum(len(e.reasoning) + len(e.answer) for e in generate.examples) / len(generate.examples)
        like = tokens_of(Range.exact(chars)).plus(Range.exact(8)).times(LIKE_EXAMPLES.low, LIKE_EXAMPLES.high)
        usual = like.because(f"answers like the worked examples, {span(like)} tokens")
    else:
        usual = REASONING if is_reasoner(model) else ANSWERS
    capped = usual.at_most(sampling.max_tokens)
    # Where samples hit the limit, those that end by themselves are still shorter.
    low = min(capped.low, 0.5 * sampling.max_tokens)
    return Range(low, capped.high, f"{usual.basis}; max_tokens caps at {sampling.max_tokens:,}")


def sampling_quantities(
    asked: SamplingLoad,
    model: ModelFacts,
    compute: SamplingCompute,
    machine: Machine,
    num_starts: int,
) -> tuple[dict[str, Range], list[str], int]:
    """Estimate tokens, time, memory and disk of sampling a model on a machine.

    Returns:
        The quantities, notes on what could not be estimated, the number of GPUs used.
    """
    model = as_sampled(model, compute.dtype, machine)
    is_picked = compute.tensor_parallel is None
    compute = placed(compute, model, machine)
    num_gpus = gpus_of_a_copy(compute) * compute.replicas if machine.num_gpus else 0
    found = {TOKENS: asked.tokens, DISK: _disk(asked)}
    notes: list[str] = []
    memory = _memory(model, compute, machine, asked)
    if memory is not None:
        by_itself = f"tensor_parallel {compute.tensor_parallel}, picked; " if is_picked and num_gpus > 1 else ""
        found[MEMORY] = memory.because(f"{by_itself}{memory.basis}")
    speed = None
    if asked.measured_speed and machine.is_this:
        speed = Range(0.85 * asked.measured_speed, 1.1 * asked.measured_speed, "speed measured by this run")
    if speed is None:
        speed = decoding_speed(model, compute, machine, asked)
    if machine.num_gpus:
        seqs = requests_at_once(model, compute, machine, asked, engine_of(compute, machine) == "vllm")
        if seqs is not None and seqs < min(FEW_SEQS, asked.num_samples.high):
            there = min(machine.num_gpus, GPUS_A_MACHINE) // compute.replicas
            is_more = 2 * gpus_of_a_copy(compute) <= there
            way = ": a higher compute.tensor_parallel is faster" if is_more else ""
            notes.append(f"only {seqs:.0f} requests fit at once beside the weights{way}")
    if speed is None:
        notes.append(_why_no_speed(model, compute, machine))
        return found, notes, num_gpus
    seconds = asked.tokens.over(speed).plus(_prefill(asked, model, machine, num_gpus))
    start = START_S[machine.device].plus(Range.exact(model.weights_gib or 1.0).over(LOAD_GIB_PER_S))
    basis = f"{model.basis}, {span(speed)} tokens/s: {speed.basis}"
    found[SECONDS] = seconds.plus(start.times(num_starts)).because(basis)
    return found, notes, num_gpus


def placed(compute: SamplingCompute, model: ModelFacts, machine: Machine) -> SamplingCompute:
    """Return the settings with the number for `tensor_parallel` that a run on the machine would pick."""
    if compute.tensor_parallel is not None:
        return compute
    picked = 1
    if machine.num_gpus > 1 and engine_of(compute, machine) == "vllm":
        there = min(machine.num_gpus, GPUS_A_MACHINE)
        heads = model.shape.heads if model.shape else None
        picked = pick_tensor_parallel(compute, model.weights_gib or 0.0, machine.gpu_gib, there, heads)
    return compute.model_copy(update={"tensor_parallel": picked})


def gpus_of_a_copy(compute: SamplingCompute) -> int:
    """Return the number of GPUs that hold one copy of the model."""
    return (compute.tensor_parallel or 1) * compute.pipeline_parallel


def gpu_gib_needed(weights_gib: float, compute: SamplingCompute) -> float:
    """Return the memory that each GPU needs for one copy, in GiB: for use, and for the run's check before it starts."""
    each = weights_gib / gpus_of_a_copy(compute)
    return max(1.05 * each + 1.5, HEADROOM * each / compute.gpu_memory_share)


def decoding_speed(model: ModelFacts, compute: SamplingCompute, machine: Machine, asked: SamplingLoad) -> Range | None:
    """Return the tokens per second over all copies; `None` if unknown, or if the model does not fit."""
    context = asked.prompt_tokens.middle + asked.completion_tokens.middle / 2
    is_vllm = engine_of(compute, machine) == "vllm"
    tflops = machine.tflops
    if tflops is None or model.active_parameters is None:
        return None
    if not machine.num_gpus:
        cores = min(compute.cpu_threads or machine.num_cores, machine.num_cores)
        reached = _cpu_reached(model, machine) if is_vllm else TRANSFORMERS_REACHED
        tflops, each = core_tflops(model, machine, model.dtype)
        speed = Range.exact(cores * 1e12).by(tflops).by(reached)
        basis = f"{counted(cores, 'core')}, {reached.low:.0%} to {reached.high:.0%} of {each}"
        return speed.times(1 / model.flops_per_token(context)).because(basis)
    bandwidth = machine.gb_per_second
    seqs = requests_at_once(model, compute, machine, asked, is_vllm)
    if bandwidth is None or seqs is None:
        return None
    gpus = gpus_of_a_copy(compute)
    read_gb = ((model.weights_gib or 0.0) * GIB + seqs * context * model.kv_bytes_per_token) / 1e9
    flops = seqs * model.flops_per_token(context)
    bounds = [
        max(read_gb / (gb * gpus), flops / (peak * 1e12 * gpus))
        for gb, peak in ((bandwidth.low, tflops.low), (bandwidth.high, tflops.high))
    ]
    is_mixture = model.active_parameters != model.num_parameters
    reached = TRANSFORMERS_REACHED if not is_vllm else MIXTURE_REACHED if is_mixture else GPU_REACHED
    step_s = Range(min(bounds), max(bounds)).over(reached).plus(STEP_S if is_vllm else TRANSFORMERS_STEP_S)
    basis = f"{seqs:.0f} requests at once, {reached.low:.0%} to {reached.high:.0%} of the roofline"
    return Range.exact(seqs * compute.replicas).over(step_s).because(basis)


def _cpu_reached(model: ModelFacts, machine: Machine) -> Range:
    return CPU_REACHED if product_speed(model, machine) is None else MEASURED_REACHED


def requests_at_once(
    model: ModelFacts, compute: SamplingCompute, machine: Machine, asked: SamplingLoad, is_vllm: bool = True
) -> float | None:
    """Return the requests in flight of one copy on GPUs; `None` if not even one fits."""
    most = compute.max_num_seqs or (GPU_SEQS if is_vllm else TRANSFORMERS_SEQS)
    gpus = gpus_of_a_copy(compute)
    room_gib = gpus * machine.gpu_gib * compute.gpu_memory_share - 1.05 * (model.weights_gib or 0.0) - 1.5 * gpus
    tokens = asked.prompt_tokens.middle + asked.completion_tokens.middle
    fitting = room_gib * GIB / (tokens * model.kv_bytes_per_token)
    return None if fitting < 1 else max(1.0, min(most, fitting, asked.num_samples.high / compute.replicas))


def engine_of(compute: SamplingCompute, machine: Machine) -> str:
    """Return the engine that would run on the machine; another machine is assumed to have vLLM."""
    if not machine.is_this:
        return "server" if compute.base_urls else "vllm" if compute.engine == "auto" else compute.engine
    try:
        return pick_engine(compute)
    except DistillError:
        return compute.engine


def _why_no_speed(model: ModelFacts, compute: SamplingCompute, machine: Machine) -> str:
    if model.active_parameters is None:
        return f"{model.name}: its size is not known here, so its speed and memory cannot be estimated"
    if machine.tflops is None:
        return f"{machine.name}: not in the table of GPUs, so its speed cannot be estimated (--gpu names one that is)"
    gpus = gpus_of_a_copy(compute)
    return (
        f"{model.name}: {model.weights_gib or 0:.0f} GiB of weights do not fit into {gpus} x {machine.gpu_gib:.0f} GiB"
    )


def _prefill(asked: SamplingLoad, model: ModelFacts, machine: Machine, num_gpus: int) -> Range:
    """Return the seconds for reading the prompts."""
    tflops = machine.tflops
    if tflops is None or model.active_parameters is None:
        return Range(0, 0)
    units = num_gpus or machine.num_cores
    if not num_gpus:
        tflops, _ = core_tflops(model, machine, model.dtype)
    speed = tflops.times(units * 1e12).by(PREFILL_REACHED if num_gpus else _cpu_reached(model, machine))
    work = asked.num_samples.by(asked.fresh_tokens).times(model.flops_per_token(asked.prompt_tokens.middle / 2))
    return work.over(speed)


def _memory(model: ModelFacts, compute: SamplingCompute, machine: Machine, asked: SamplingLoad) -> Range | None:
    """Return the GiB of each GPU, or of the machine on CPU."""
    if model.weights_gib is None:
        return None
    if machine.num_gpus:
        gpus = gpus_of_a_copy(compute)
        least = gpu_gib_needed(model.weights_gib, compute)
        most = max(least, compute.gpu_memory_share * machine.gpu_gib)
        basis = f"weights {model.weights_gib / gpus:.1f} GiB; vLLM takes {compute.gpu_memory_share:.0%} of each GPU"
        if engine_of(compute, machine) != "vllm":
            most, basis = 2 * least, f"weights {model.weights_gib / gpus:.1f} GiB, and a KV cache"
        return Range(least, most, basis)
    longest = asked.prompt_tokens.high + asked.completion_tokens.high
    batch = (compute.max_num_seqs or CPU_SEQS) * longest * model.kv_bytes_per_token / GIB
    most = max(1.0, CPU_KV_SHARE * usable_memory_gib(machine))
    kv = compute.kv_cache_gib or max(1.0, min(most, batch))
    basis = (
        f"weights {model.weights_gib:.1f} GiB in {model.dtype}, KV cache up to {kv:.1f}, processes {span(PROCESS_GIB)}"
    )
    copies = compute.replicas
    return Range(copies * model.weights_gib, copies * (model.weights_gib + kv)).plus(PROCESS_GIB).because(basis)


def _disk(asked: SamplingLoad) -> Range:
    return asked.tokens.by(DISK_BYTES_PER_TOKEN).times(1 / GIB).because("texts in the ledger and in Parquet")


def served_quantities(
    asked: SamplingLoad, config: GenerateConfig, prices: Prices
) -> tuple[dict[str, Range], list[str]]:
    """Estimate tokens, time, disk and money of a served teacher; return also notes on what is missing."""
    compute = config.compute
    in_flight = compute.max_in_flight or IN_FLIGHT_PER_URL * len(compute.base_urls)
    in_flight = min(in_flight, int(asked.num_samples.high) or 1)
    speed = SERVED_SPEED.times(in_flight)
    basis = f"{in_flight:,} requests in flight at {span(SERVED_SPEED)} tokens/s each, depending on the server"
    if asked.measured_speed:
        speed = Range(0.8 * asked.measured_speed, 1.2 * asked.measured_speed)
        basis = f"{span(speed)} tokens/s, measured by this run"
    # The last requests run alone, at the speed of a single one.
    tail = asked.completion_tokens.over(SERVED_SPEED)
    found = {TOKENS: asked.tokens, DISK: _disk(asked), SECONDS: asked.tokens.over(speed).plus(tail).because(basis)}
    sent = asked.num_samples.by(asked.prompt_tokens)
    if config.price is not None:
        price = config.price
        cost = sent.times(price.input_per_million / 1e6).plus(asked.tokens.times(price.output_per_million / 1e6))
        if price.currency != prices.currency:
            note = f"{span(cost)} {price.currency} by generate.price, not added to {prices.currency}"
            return found, [f"{note}; --prices with currency: {price.currency} would add it"]
        said = f"generate.price: {price.input_per_million:g} in, {price.output_per_million:g} out a million tokens"
        return {**found, COST: cost.because(said)}, []
    price_of = prices.teacher(config.teacher)
    if price_of is None:
        note = (
            f"{config.teacher}: no price known for its tokens; set generate.price, or count the GPU-hours of your own "
            "server"
        )
        return found, [note]
    ins, outs = price_of.input_per_million, price_of.output_per_million
    said = f"{outs.low:g} to {outs.high:g} {prices.currency} a million tokens ({prices.dated}), unless you run it"
    cost = sent.by(ins.range("")).plus(asked.tokens.by(outs.range(""))).times(1e-6)
    return {**found, COST: cost.because(said)}, []
