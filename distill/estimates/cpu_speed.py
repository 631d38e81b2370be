"""Speed of CPU cores for plans: measured on this machine, assumed for others."""

from dataclasses import replace

from distill.engines.memory import BYTES_PER_WEIGHT
from distill.estimates.machine import Machine
from distill.estimates.models import ModelFacts
from distill.estimates.quantities import Range
from distill.estimates.training_layouts import CPU_CORE_TFLOPS
from distill.execution.cpu_products import UNKNOWN, ProductSpeed, block_shapes, measured_in_child


def product_speed(model: ModelFacts, machine: Machine) -> ProductSpeed | None:
    """Return the measured speed of products at the model's shapes; `None` on another machine, or one with GPUs."""
    if machine.num_gpus or not machine.is_this:
        return None
    if model.shape is None:
        return measured_in_child(UNKNOWN)
    return measured_in_child(block_shapes(model.shape.hidden, model.shape.intermediate))


def core_tflops(model: ModelFacts, machine: Machine, dtype: str) -> tuple[Range, str]:
    """Return the TFLOPS of one core in a dtype, and a text with their source."""
    speed = product_speed(model, machine)
    if speed is None:
        return Range.exact(CPU_CORE_TFLOPS), f"{1_000 * CPU_CORE_TFLOPS:.0f} GFLOPS (assumed)"
    gflops = speed.of(dtype)
    return Range.exact(gflops / 1_000), f"{gflops:.0f} GFLOPS, measured in {dtype}"


def as_sampled(model: ModelFacts, dtype: str, machine: Machine) -> ModelFacts:
    """Return the model in the dtype in which it would be sampled, which its memory and speed depend on.

    Args:
        model: in `dtype`.
        dtype: `compute.dtype`.
        machine: where it runs.
    """
    if dtype != "auto" or machine.num_gpus:
        return replace(model, dtype=dtype)
    speed = product_speed(model, machine)
    picked = speed.faster if speed is not None and not model.is_quantised else "bfloat16"
    times = BYTES_PER_WEIGHT[picked] / BYTES_PER_WEIGHT["bfloat16"]
    return replace(model, dtype=picked, weights_gib=None if model.weights_gib is None else times * model.weights_gib)
