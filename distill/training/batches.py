"""Which rows a step learns from, and which of them go through the model together.

A step has `batch_size` rows, the same ones whatever the layout: consecutive ones of the epoch's seeded permutation.
They are split into one micro-batch for each device and accumulation step, rows of similar length together where that is
asked for (`transformers.trainer_pt_utils.BatchRebalanceSampler`: "Poor Man's Batch Rebalance").
"""

import heapq
import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from transformers.trainer_pt_utils import BatchRebalanceSampler


class StepBatches(BatchRebalanceSampler):  # type: ignore[misc]
    """Yields this rank's micro-batches as lists of row numbers.

    An epoch's last step may have fewer rows than micro-batches: each micro-batch that would be empty gets row number
    `len(lengths)`, a row without labels that the dataset holds behind the real ones, so that no row counts twice.
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
        """Split rows into micro-batches.

        Args:
            lengths: length of each row, in tokens.
            batch_size: rows a step over all ranks.
            num_ranks: data-parallel processes.
            accumulation: micro-batches of each rank in a step.
            rank: this process.
            seed: of the permutations; epoch e is drawn with `seed + e`.
            group_by_length: whether rows of similar length go together.
        """
        # The base class asks for a row for each micro-batch in every step, which the last step may lack.
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
        """The rows of each step of the epoch."""
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        order = torch.randperm(len(self.lengths), generator=generator).tolist()
        for start in range(0, len(order), self.effective_batch_size):
            yield order[start : start + self.effective_batch_size]

    def __iter__(self) -> Iterator[list[int]]:
        for rows in self.steps():
            yield from self._split(rows)[self.rank]

    def tokens_per_step(self) -> list[int]:
        """Tokens of each step of the epoch, padding left out."""
        return [sum(self.lengths[row] for row in rows) for rows in self.steps()]

    def fullest_pass(self, num_steps: int = 64) -> tuple[int, int]:
        """Rows and longest row (tokens) of the micro-batch that takes most when padded.

        Looked for among the steps of the epoch that have the longest rows; a data set of millions has too many steps.
        """
        longest = heapq.nlargest(num_steps, self.steps(), key=lambda rows: max(self.lengths[row] for row in rows))
        passes = (rows for step in longest for rank in self._split(step) for rows in rank)
        real = ([self.lengths[row] for row in rows if row < len(self.lengths)] for rows in passes)
        sizes = [(len(lengths), max(lengths)) for lengths in real if lengths]
        return max(sizes, key=lambda size: size[0] * size[1])

    def _split(self, rows: list[int]) -> list[list[list[int]]]:
        """For each rank, its micro-batches of one step."""
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
