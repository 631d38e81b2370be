"""Find changes that make reinforcement learning fit into memory; each is tried with the same estimate."""

from collections.abc import Callable, Iterator
from dataclasses import replace

from distill.estimates.limits import FULL_SHARE
from distill.estimates.machine import Machine, usable_memory_gib
from distill.estimates.remedies import MAX_GPUS
from distill.estimates.rl_cost import RlCost
from distill.estimates.stage import MEMORY
from distill.recipe.rl import RlConfig

MIN_ANSWER_TOKENS = 256
"""Shorter answers are not suggested."""


def ways_to_fit(estimate: Callable[[RlConfig, Machine], RlCost], config: RlConfig, machine: Machine) -> str:
    """Return a sentence with changes that would make it fit, each by itself; empty if memory is not tight.

    Args:
        estimate: what other settings, or another machine, would take.
        config: `rl:` of the recipe.
        machine: where it runs.
    """
    there = machine.gpu_gib if machine.num_gpus else usable_memory_gib(machine)
    now = estimate(config, machine).quantities.get(MEMORY)
    if now is None or now.high <= FULL_SHARE * there:
        return ""

    def fits(one: RlConfig, on: Machine = machine) -> bool:
        found = estimate(one, on).quantities.get(MEMORY)
        # If answers of usual length fit already, the change has to make the longest ones fit too.
        return found is not None and (found.low if now.low > there else found.high) <= there

    ways = [said for said, one in _leaner(config) if fits(one)]
    ways += next(([said] for said, one in _shorter(config) if fits(one)), [])
    ways += next(([said] for said, on in _larger(machine) if fits(config, on)), [])
    if not ways:
        return f"No setting makes it fit: it takes {'larger ' if machine.num_gpus else ''}GPUs, or a smaller student."
    return f"Any of these would do: {', '.join(ways)}." if len(ways) > 1 else f"{ways[0]} would do."


def _leaner(config: RlConfig) -> Iterator[tuple[str, RlConfig]]:
    training = config.compute.training
    if training.per_device_batch_size != 1:
        smaller = training.model_copy(update={"per_device_batch_size": 1})
        compute = config.compute.model_copy(update={"training": smaller})
        yield "rl.compute.training.per_device_batch_size: 1", config.model_copy(update={"compute": compute})
    if config.kl:
        yield "rl.kl: 0", config.model_copy(update={"kl": 0.0})
    if config.method == "full":
        yield "rl.method: lora", config.model_copy(update={"method": "lora"})


def _shorter(config: RlConfig) -> Iterator[tuple[str, RlConfig]]:
    length = config.max_tokens // 2
    while length >= MIN_ANSWER_TOKENS:
        yield f"rl.max_tokens: {length}", config.model_copy(update={"max_tokens": length})
        length //= 2


def _larger(machine: Machine) -> Iterator[tuple[str, Machine]]:
    number = 2 * machine.num_gpus
    while 0 < number <= MAX_GPUS:
        yield f"{number} such GPUs", replace(machine, num_gpus=number)
        number *= 2
