"""Measure which number format this CPU multiplies faster, because no list of CPU features predicts it.

A CPU without bfloat16 instructions multiplies bfloat16 in a plain loop, several times slower than float32; one with
them multiplies it several times faster. torch is imported only to measure.

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
"""Longest side that is measured. Larger matrices take longer and give the same result."""
MEASURE_S = 0.01
"""Minimum time to measure each format at each shape, in seconds. At least one product is measured."""
CHILD_S = 60.0
WORTH = 1.25
"""float32 takes twice the memory, so it must be faster by this factor."""
UNKNOWN: Shapes = ((1_024, 1_024), (4_096, 1_024))
"""Stands for the layers of a model whose configuration does not give them."""


@dataclass(frozen=True, slots=True)
class ProductSpeed:
    """Speed of matrix products on one thread, in GFLOP/s."""

    bfloat16: float
    float32: float

    @property
    def faster(self) -> DType:
        """Return the format to compute in."""
        return "float32" if self.float32 > WORTH * self.bfloat16 else "bfloat16"

    def of(self, dtype: str) -> float:
        """Return the GFLOP/s in a format. float16 is assumed to be as fast as bfloat16."""
        return self.float32 if dtype == "float32" else self.bfloat16

    def describe(self) -> str:
        """Return the figures in words."""
        return f"{self.bfloat16:.0f} GFLOP/s a core in bfloat16, {self.float32:.0f} in float32"

    def to_json(self) -> dict[str, float]:
        return {dtype: round(value, 1) for dtype, value in asdict(self).items()}


def shapes_of(config: Mapping[str, Any]) -> Shapes:
    """Return the linear layers of a transformer block.

    Args:
        config: the model's config.json. Of a model with several parts, the text model's is used.
    """
    config = config.get("text_config") or config
    hidden, inner = config.get("hidden_size"), config.get("intermediate_size")
    if not (isinstance(hidden, int) and isinstance(inner, int) and hidden > 0 and inner > 0):
        return UNKNOWN
    return block_shapes(hidden, inner)


def block_shapes(hidden: int, intermediate: int) -> Shapes:
    """Return the linear layers of a block of width `hidden`, with an MLP of width `intermediate`."""
    return ((hidden, hidden), (intermediate, hidden), (hidden, intermediate))


def measure(shapes: Shapes) -> ProductSpeed:
    """Measure products in both formats on one thread of this process. Takes some tens of milliseconds."""
    import torch

    # One thread, and the fastest of several products, are least affected by other processes.
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
        torch.nn.functional.linear(rows[:1], weight)  # the first call initialises the library
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
    """Measure in a child process, which keeps torch out of this one.

    Returns:
        `None` if torch is not installed or the process fails.
    """
    command = [sys.executable, "-W", "ignore", "-m", "distill.execution.cpu_products", *(f"{n}x{k}" for n, k in shapes)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=CHILD_S, check=True)
        return ProductSpeed(**json.loads(done.stdout.splitlines()[-1]))
    except (OSError, subprocess.SubprocessError, ValueError, IndexError, TypeError):
        return None


def main(names: Sequence[str]) -> None:
    """Print the result of `measure` for shapes written as `1536x576`."""
    shapes = tuple((int(n), int(k)) for n, _, k in (name.partition("x") for name in names))
    sys.stdout.write(json.dumps(asdict(measure(shapes))) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
