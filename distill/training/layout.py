"""How the rows of a step are shared out among processes and passes. Pure: imports no torch.

Enters: `sft:` of a recipe, the GPUs of this machine, the processes that a launcher outside has started, if any.
Leaves: a `Layout`, for which holds

    per_device_batch_size * accumulation * num_processes / sequence_parallel == sft.batch_size

so that a step is the same set of rows whatever the layout.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from distill.errors import ModelError
from distill.recipe.sft import SftConfig, TrainCompute

Sharding = Literal["none", "fsdp", "zero3"]

MAX_PER_DEVICE = 8
"""Rows at once on a device where the recipe does not say."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Processes, and what each of them does in a step."""

    num_processes: int
    """One a GPU; without GPUs they share the cores."""
    per_device_batch_size: int
    """Rows of a pass, on average."""
    accumulation: int
    """Passes of a step."""
    sharding: Sharding = "none"
    sequence_parallel: int = 1
    """Processes that share each row."""

    @property
    def data_parallel(self) -> int:
        """Processes, or groups of them, that have rows of their own."""
        return self.num_processes // self.sequence_parallel

    @property
    def batch_size(self) -> int:
        """Rows of a step."""
        return self.per_device_batch_size * self.accumulation * self.data_parallel

    @property
    def needs_group(self) -> bool:
        """Whether a torch.distributed process group is to be made; sharding wants one even for a single process."""
        return self.num_processes > 1 or self.sharding != "none"

    def to_json(self) -> dict[str, Any]:
        """For jobs, manifests and reports."""
        return asdict(self)


def plan_layout(
    config: SftConfig,
    num_gpus: int,
    auto_sharding: Callable[[int], Sharding] = lambda num_processes: "none",
    world_size: int | None = None,
) -> Layout:
    """Share out a step's rows.

    Args:
        config: `sft:` of the recipe.
        num_gpus: GPUs of this machine that may be used.
        auto_sharding: what `sharding: auto` means, given the number of processes.
        world_size: processes that a launcher outside has started, on all machines; `None`: distill starts them itself.

    Raises:
        ModelError: the recipe's numbers do not go together; the message has the nearest that do.
    """
    compute = config.compute
    num_processes = _num_processes(compute, num_gpus, world_size)
    if num_processes % compute.sequence_parallel:
        raise ModelError(
            f"sft.compute.sequence_parallel ({compute.sequence_parallel}) does not divide the {num_processes} "
            f"processes. Set it to {_either(_neighbours(compute.sequence_parallel, _divisors(num_processes)))}."
        )
    sharding = _sharding(compute, num_processes, num_gpus, auto_sharding)
    data_parallel = num_processes // compute.sequence_parallel
    per_process = _rows_per_process(config.batch_size, data_parallel)
    per_device = compute.per_device_batch_size or _largest_divisor(per_process, MAX_PER_DEVICE)
    if per_process % per_device:
        near = _either(_neighbours(per_device, _divisors(per_process)))
        unit = per_device * data_parallel
        raise ModelError(
            f"sft.compute.per_device_batch_size ({per_device}) does not divide the {per_process} rows of a step that "
            f"each of {data_parallel} data-parallel processes has. Set it to {near}, or sft.batch_size to "
            f"{_either(_multiples_near(config.batch_size, unit))}."
        )
    return Layout(num_processes, per_device, per_process // per_device, sharding, compute.sequence_parallel)


def _num_processes(compute: TrainCompute, num_gpus: int, world_size: int | None) -> int:
    wanted = compute.num_processes
    if world_size is not None:
        if wanted not in (None, world_size):
            raise ModelError(
                f"sft.compute.num_processes is {wanted}, but {world_size} processes were started. Leave the field out "
                "or start as many."
            )
        return world_size
    if wanted is not None and 0 < num_gpus < wanted:
        raise ModelError(
            f"sft.compute.num_processes is {wanted}, but this machine has {num_gpus} usable GPUs. Set it to "
            f"{num_gpus} or less, or start distill on several machines (docs/scaling.md)."
        )
    return wanted or max(num_gpus, 1)


def _sharding(
    compute: TrainCompute, num_processes: int, num_gpus: int, auto_sharding: Callable[[int], Sharding]
) -> Sharding:
    if compute.sharding == "auto":
        must_share = compute.cpu_offload or compute.sequence_parallel > 1
        sharding: Sharding = "fsdp" if must_share else auto_sharding(num_processes)
    else:
        sharding = compute.sharding
    if sharding != "none" and not num_gpus:
        raise ModelError(
            "sft.compute: sharding, cpu_offload and sequence_parallel need GPUs, and none was found. Without them "
            "each process holds the whole model: set sharding: none."
        )
    return sharding


def _rows_per_process(batch_size: int, data_parallel: int) -> int:
    if batch_size % data_parallel:
        raise ModelError(
            f"sft.batch_size ({batch_size}) is not a multiple of the {data_parallel} data-parallel processes "
            f"(processes / sequence_parallel). Set it to {_either(_multiples_near(batch_size, data_parallel))}, or "
            "change sft.compute.num_processes."
        )
    return batch_size // data_parallel


def _divisors(number: int) -> list[int]:
    return [n for n in range(1, number + 1) if number % n == 0]


def _largest_divisor(number: int, most: int) -> int:
    return max(n for n in _divisors(number) if n <= most)


def _neighbours(wanted: int, allowed: list[int]) -> list[int]:
    """The nearest allowed numbers below and above."""
    below = [n for n in allowed if n < wanted][-1:]
    return below + [n for n in allowed if n > wanted][:1]


def _multiples_near(wanted: int, unit: int) -> list[int]:
    """The nearest multiples of `unit` below and above that are not 0."""
    low = wanted // unit * unit
    return [n for n in (low, low + unit) if n > 0]


def _either(numbers: list[int]) -> str:
    return " or ".join(str(n) for n in numbers)
