"""Distribute the rows of a step over processes and passes. Imports no torch.

A step is the same set of rows whatever the layout, as every `Layout` satisfies

    per_device_batch_size * accumulation * num_processes / sequence_parallel == rows of a step

which are `sft.batch_size`, or `rl.prompts_per_step * rl.group_size`.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from distill.errors import ModelError
from distill.recipe.rl import RlConfig
from distill.recipe.sft import SftConfig, TrainCompute

Sharding = Literal["none", "fsdp", "zero3"]

MAX_PER_DEVICE = 8
"""Most rows per pass and device if the recipe does not set `per_device_batch_size`."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Processes, and the passes of each in a step."""

    num_processes: int
    """One per GPU; without GPUs they share the cores."""
    per_device_batch_size: int
    """Rows per pass, on average."""
    accumulation: int
    """Passes per step."""
    sharding: Sharding = "none"
    sequence_parallel: int = 1
    """Processes that share each row."""

    @property
    def data_parallel(self) -> int:
        """Return the number of processes, or of groups sharing rows, that have rows of their own."""
        return self.num_processes // self.sequence_parallel

    @property
    def batch_size(self) -> int:
        """Return the rows per step."""
        return self.per_device_batch_size * self.accumulation * self.data_parallel

    @property
    def needs_group(self) -> bool:
        """Return whether a torch.distributed process group is needed; sharding needs one even for one process."""
        return self.num_processes > 1 or self.sharding != "none"

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready dict for jobs, manifests and reports."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Step:
    """What is distributed, and the keys of the recipe that say it."""

    num_rows: int
    compute: TrainCompute
    rows_key: str
    compute_key: str


def _step_of(config: SftConfig | RlConfig) -> _Step:
    if isinstance(config, SftConfig):
        return _Step(config.batch_size, config.compute, "sft.batch_size", "sft.compute")
    num_rows = config.prompts_per_step * config.group_size
    return _Step(num_rows, config.compute.training, "rl.prompts_per_step * rl.group_size", "rl.compute.training")


def plan_layout(
    config: SftConfig | RlConfig,
    num_gpus: int,
    auto_sharding: Callable[[int], Sharding] = lambda num_processes: "none",
    world_size: int | None = None,
) -> Layout:
    """Return the layout of a step.

    Args:
        config: `sft:` or `rl:` of the recipe.
        num_gpus: usable GPUs of this machine.
        auto_sharding: resolves `sharding: auto`, given the number of processes.
        world_size: processes that an external launcher started, on all machines; `None`: distill starts them.

    Raises:
        ModelError: the recipe's numbers are not compatible; the message names the nearest that are.
    """
    step = _step_of(config)
    compute, key = step.compute, step.compute_key
    num_processes = _num_processes(step, num_gpus, world_size)
    if num_processes % compute.sequence_parallel:
        raise ModelError(
            f"{key}.sequence_parallel ({compute.sequence_parallel}) does not divide the {num_processes} "
            f"processes. Set it to {_either(_neighbours(compute.sequence_parallel, _divisors(num_processes)))}."
        )
    sharding = _sharding(step, num_processes, num_gpus, auto_sharding)
    data_parallel = num_processes // compute.sequence_parallel
    per_process = _rows_per_process(step, data_parallel)
    per_device = compute.per_device_batch_size or _largest_divisor(per_process, MAX_PER_DEVICE)
    if per_process % per_device:
        near = _either(_neighbours(per_device, _divisors(per_process)))
        unit = per_device * data_parallel
        raise ModelError(
            f"{key}.per_device_batch_size ({per_device}) does not divide the {per_process} rows of a step that "
            f"each of {data_parallel} data-parallel processes has. Set it to {near}, or {step.rows_key} to "
            f"{_either(_multiples_near(step.num_rows, unit))}."
        )
    return Layout(num_processes, per_device, per_process // per_device, sharding, compute.sequence_parallel)


def _num_processes(step: _Step, num_gpus: int, world_size: int | None) -> int:
    wanted, key = step.compute.num_processes, f"{step.compute_key}.num_processes"
    if world_size is not None:
        if wanted not in (None, world_size):
            raise ModelError(
                f"{key} is {wanted}, but {world_size} processes were started. Leave the field out or start as many."
            )
        return world_size
    if wanted is not None and 0 < num_gpus < wanted:
        raise ModelError(
            f"{key} is {wanted}, but this machine has {num_gpus} usable GPUs. Set it to "
            f"{num_gpus} or less, or start distill on several machines (docs/scaling.md)."
        )
    return wanted or max(num_gpus, 1)


def _sharding(step: _Step, num_processes: int, num_gpus: int, auto_sharding: Callable[[int], Sharding]) -> Sharding:
    compute = step.compute
    if compute.sharding == "auto":
        must_share = compute.cpu_offload or compute.sequence_parallel > 1
        sharding: Sharding = "fsdp" if must_share else auto_sharding(num_processes)
    else:
        sharding = compute.sharding
    if sharding != "none" and not num_gpus:
        raise ModelError(
            f"{step.compute_key}: sharding, cpu_offload and sequence_parallel need GPUs, and none was found. Without "
            "them each process holds the whole model: set sharding: none."
        )
    return sharding


def _rows_per_process(step: _Step, data_parallel: int) -> int:
    if step.num_rows % data_parallel:
        raise ModelError(
            f"{step.rows_key} ({step.num_rows}) is not a multiple of the {data_parallel} data-parallel processes "
            f"(processes / sequence_parallel). Set it to {_either(_multiples_near(step.num_rows, data_parallel))}, or "
            f"change {step.compute_key}.num_processes."
        )
    return step.num_rows // data_parallel


def _divisors(number: int) -> list[int]:
    return [n for n in range(1, number + 1) if number % n == 0]


def _largest_divisor(number: int, most: int) -> int:
    return max(n for n in _divisors(number) if n <= most)


def _neighbours(wanted: int, allowed: list[int]) -> list[int]:
    """Return the nearest allowed numbers below and above."""
    below = [n for n in allowed if n < wanted][-1:]
    return below + [n for n in allowed if n > wanted][:1]


def _multiples_near(wanted: int, unit: int) -> list[int]:
    """Return the nearest positive multiples of `unit`, below and above."""
    low = wanted // unit * unit
    return [n for n in (low, low + unit) if n > 0]


def _either(numbers: list[int]) -> str:
    return " or ".join(str(n) for n in numbers)
