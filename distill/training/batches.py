"""Select the rows of each step and split them into micro-batches.

A step has `batch_size` consecutive rows of the epoch's seeded permutation, the same ones whatever the layout. They are
split into one micro-batch for each device and accumulation step, optionally with rows of similar length together
(`transformers.trainer_pt_utils.BatchRebalanceSampler`: "Poor Man's Batch Rebalance").
"""

import heapq
import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from transformers.trainer_pt_utils import BatchRebalanceSampler


class StepBatches(BatchRebalanceSampler):  # type: ignore[misc]
    """Sampler that yields this rank's micro-batches as lists of row numbers.

    The last step of an epoch may have fewer rows than micro-batches. Each empty micro-batch then gets row number
    `len(lengths)`, a row without labels after the real ones. The base class would repeat rows instead.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        batch_size: int,
        num_ranks: int,
        accumulation: int,
        rank: int,
        seed: int,
        group_by_length: bool,
    ) -> None:
        """Create the sampler.

        Args:
            lengths: length of each row, in tokens.
            batch_size: rows per step over all ranks.
            num_ranks: data-parallel processes.
            accumulation: micro-batches per rank and step.
            rank: this process.
            seed: epoch e is permuted with `seed + e`.
            group_by_length: whether to put rows of similar length together.
        """
        super().__init__(
            lengths=list(lengths),
            effective_batch_size=batch_size,
            dp_size=num_ranks,
            grad_accum=accumulation,
            seed=seed,
            rank=rank,
            drop_last=False,
        )
        self.group_by_length = group_by_length

    def steps(self) -> Iterator[list[int]]:
        """Yield the rows of each step of the epoch."""
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        order = torch.randperm(len(self.lengths), generator=generator).tolist()
        for start in range(0, len(order), self.effective_batch_size):
            yield order[start : start + self.effective_batch_size]

    def __iter__(self) -> Iterator[list[int]]:
        for rows in self.steps():
            yield from self._split(rows)[self.rank]

    def tokens_per_step(self) -> list[int]:
        """Return the tokens of each step of the epoch, without padding."""
        return [sum(self.lengths[row] for row in rows) for rows in self.steps()]

    def fullest_pass(self, num_steps: int = 64) -> tuple[int, int]:
        """Return the rows, and the longest row in tokens, of the micro-batch that is largest when padded."""
        # Search only the steps with the longest rows: a dataset of millions of rows has too many steps.
        longest = heapq.nlargest(num_steps, self.steps(), key=lambda rows: max(self.lengths[row] for row in rows))
        passes = (rows for step in longest for rank in self._split(step) for rows in rank)
        real = ([self.lengths[row] for row in rows if row < len(self.lengths)] for rows in passes)
        sizes = [(len(lengths), max(lengths)) for lengths in real if lengths]
        return max(sizes, key=lambda size: size[0] * size[1])

    def _split(self, rows: list[int]) -> list[list[list[int]]]:
        """Return the micro-batches of one step for each rank."""
        num_groups = self.dp_size * self.grad_accum
        if len(rows) < num_groups:
            groups = [[row] for row in rows] + [[len(self.lengths)]] * (num_groups - len(rows))
        elif self.group_by_length:
            split: list[list[list[int]]] = self._assign(rows, [self.lengths[row] for row in rows])
            return split
        else:
            size = math.ceil(len(rows) / num_groups)
            bounds = [min(i * size, len(rows) - (num_groups - i)) for i in range(num_groups)] + [len(rows)]
            groups = [rows[a:b] for a, b in pairwise(bounds)]
        return [groups[rank :: self.dp_size] for rank in range(self.dp_size)]
