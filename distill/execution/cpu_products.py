"""Which number format this CPU multiplies fast: measured, since no list of CPU features tells it for all of them.

A CPU without bfloat16 instructions multiplies bfloat16 in a plain loop, several times slower than float32; one with
them multiplies it several times faster. Nothing here imports torch before it measures.

    python -m distill.execution.cpu_products 576x576 1536x576     # prints the figures as JSON
"""

import functools
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

DType = Literal["bfloat16", "float32"]
Shapes = tuple[tuple[int, int], ...]
"""(outputs, inputs) of linear layers."""

NUM_ROWS = 128
"""Rows that are multiplied at once: the requests of a full batch."""
MAX_SIDE = 2_048
"""Longest side that is measured: larger matrices take longer and tell no more."""
MEASURE_S = 0.01
"""How long each format is measured at each shape, at least; one product where it takes longer."""
CHILD_S = 60.0
WORTH = 1.25
"""float32 takes twice the memory, so it must be faster by this factor."""
UNKNOWN: Shapes = ((1_024, 1_024), (4_096, 1_024))
"""Stands for the layers of a model whose configuration does not tell them."""


@dataclass(frozen=True, slots=True)
class ProductSpeed:
    """Matrix products of one thread, in GFLOP/s."""

    bfloat16: float
    float32: float

    @property
    def faster(self) -> DType:
        """The format to compute in."""
        return "float32" if self.float32 > WORTH * self.bfloat16 else "bfloat16"

    def of(self, dtype: str) -> float:
        """GFLOP/s in a format; float16 is taken to be as fast as bfloat16."""
        return self.float32 if dtype == "float32" else self.bfloat16

    def describe(self) -> str:
        """The figures in words."""
        return f"{self.bfloat16:.0f} GFLOP/s a core in bfloat16, {self.float32:.0f} in float32"

    def to_json(self) -> dict[str, float]:
        return {dtype: round(value, 1) for dtype, value in asdict(self).items()}


def shapes_of(config: Mapping[str, Any]) -> Shapes:
    """The linear layers of a transformer block.

    Args:
        config: the model's config.json; the text model's part is read where it has parts.
    """
    config = config.get("text_config") or config
    hidden, inner = config.get("hidden_size"), config.get("intermediate_size")
    if not (isinstance(hidden, int) and isinstance(inner, int) and hidden > 0 and inner > 0):
        return UNKNOWN
    return block_shapes(hidden, inner)


def block_shapes(hidden: int, intermediate: int) -> Shapes:
    """The linear layers of a block that is `hidden` wide, with an MLP of `intermediate`."""
    return ((hidden, hidden), (intermediate, hidden), (hidden, intermediate))


def measure(shapes: Shapes) -> ProductSpeed:
    """Multiply in both formats on one thread, in this process; takes some tens of milliseconds.

    One thread, and the fastest of several products: other processes on the machine disturb that least.
    """
    import torch

    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            return ProductSpeed(*(_gflops(shapes, dtype) for dtype in (torch.bfloat16, torch.float32)))
    finally:
        torch.set_num_threads(num_threads)


def _gflops(shapes: Shapes, dtype: Any) -> float:
    import torch

    seconds = flops = 0.0
    for num_outputs, num_inputs in shapes:
        num_outputs, num_inputs = min(num_outputs, MAX_SIDE), min(num_inputs, MAX_SIDE)
        rows, weight = torch.ones(NUM_ROWS, num_inputs, dtype=dtype), torch.ones(num_outputs, num_inputs, dtype=dtype)
        torch.nn.functional.linear(rows[:1], weight)  # the first one sets up the library
        best, began = float("inf"), time.perf_counter()
        while best == float("inf") or time.perf_counter() - began < MEASURE_S:
            start = time.perf_counter()
            torch.nn.functional.linear(rows, weight)
            best = min(best, time.perf_counter() - start)
        seconds += best
        flops += 2.0 * NUM_ROWS * num_outputs * num_inputs
    return flops / seconds / 1e9


@functools.cache
def measured_in_child(shapes: Shapes = UNKNOWN) -> ProductSpeed | None:
    """The same measured by a process of its own, which keeps torch out of this one.

    Returns:
        `None` where torch is not installed or the process fails.
    """
    command = [sys.executable, "-W", "ignore", "-m", "distill.execution.cpu_products", *(f"{n}x{k}" for n, k in shapes)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=CHILD_S, check=True)
        return ProductSpeed(**json.loads(done.stdout.splitlines()[-1]))
    except (OSError, subprocess.SubprocessError, ValueError, IndexError, TypeError):
        return None


def main(names: Sequence[str]) -> None:
    """Print what `measure` finds for shapes written as `1536x576`."""
    shapes = tuple((int(n), int(k)) for n, _, k in (name.partition("x") for name in names))
    sys.stdout.write(json.dumps(asdict(measure(shapes))) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
