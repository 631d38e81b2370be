"""Stored answers as rows of traces, such as `distill.sources.imported_traces` reads."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from distill.training.rl.job import ROLLOUTS
from distill.training.rl.rollouts import read_rollouts


def rollout_rows(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (place, row) of each answer of a finished `rl` stage, step by step.

    Answers that were not trained on are among them: those of groups that were replaced, which are as good as others.
    Those to held-out problems and those that were set aside are not.

    Args:
        folder: of the stage.

    Raises:
        StoreError: a file cannot be read.
    """
    for path in sorted((folder / ROLLOUTS).glob("step-*.parquet")):
        for number, one in enumerate(read_rollouts(path), start=1):
            yield (
                f"{path} row {number}",
                {
                    "problem_id": one.problem_id,
                    "text": one.text,
                    "think_opened": one.think_opened,
                    "finish_reason": one.finish_reason,
                    "num_prompt_tokens": len(one.prompt_ids),
                    "num_completion_tokens": len(one.ids),
                    "seed": one.seed,
                    # The weights change with every step, and each has a hash.
                    "teacher_revision": f"step-{one.step}@{one.policy}",
                },
            )
