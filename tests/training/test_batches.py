"""Each step has the same rows whatever the layout, and each row counts once an epoch."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.training.batches import StepBatches

pytestmark = pytest.mark.slow  # importing transformers' trainer takes seconds


def ranks(lengths, num_ranks, accumulation, per_device, group=True, epoch=0, seed=7):
    """Each rank's micro-batches of an epoch."""
    found = []
    for rank in range(num_ranks):
        size = per_device * accumulation * num_ranks
        batches = StepBatches(lengths, size, num_ranks, accumulation, rank, seed, group)
        batches.set_epoch(epoch)
        assert len(list(batches)) == len(batches)
        found.append(list(batches))
    return found


def rows_of_steps(found, accumulation):
    num_steps = len(found[0]) // accumulation
    return [
        sorted(
            row for rank in found for micro in rank[step * accumulation : (step + 1) * accumulation] for row in micro
        )
        for step in range(num_steps)
    ]


@settings(max_examples=150, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 5_000), min_size=1, max_size=70),
    layout=st.sampled_from([(1, 1, 8), (1, 8, 1), (2, 2, 2), (4, 2, 1), (2, 1, 4), (8, 1, 1)]),
    group=st.booleans(),
    epoch=st.integers(0, 3),
)
def test_every_layout_has_the_same_rows_in_each_step(lengths, layout, group, epoch):
    empty = len(lengths)
    alone = ranks(lengths, 1, 1, 8, False, epoch)
    split = ranks(lengths, *layout, group, epoch)
    assert len({len(rank) for rank in split}) == 1, "a rank without a micro-batch would wait for ever"
    assert all(micro for rank in split for micro in rank)
    steps = [[row for row in step if row != empty] for step in rows_of_steps(split, layout[1])]
    assert steps == rows_of_steps(alone, 1)
    assert sorted(row for step in steps for row in step) == list(range(len(lengths)))


def test_epochs_differ_and_seeds_repeat():
    first, second = (ranks([5] * 40, 1, 2, 4, epoch=epoch) for epoch in (0, 1))
    assert first != second
    assert first == ranks([5] * 40, 1, 2, 4)
    assert first != ranks([5] * 40, 1, 2, 4, seed=8)


def test_rows_of_like_length_go_together():
    lengths = [10, 1_000] * 8
    grouped, plain = (ranks(lengths, 1, 4, 4, group)[0] for group in (True, False))

    def computed(micros):
        return sum(max(lengths[row] for row in micro) * len(micro) for micro in micros)

    assert computed(grouped) == sum(lengths)
    assert computed(plain) > 1.5 * sum(lengths)


def test_the_tokens_of_each_step_are_those_of_its_rows():
    lengths = list(range(1, 12))
    batches = StepBatches(lengths, 4, 1, 1, 0, 3, True)
    assert batches.tokens_per_step() == [sum(lengths[row] for row in step) for step in batches.steps()]
    assert sum(batches.tokens_per_step()) == sum(lengths)
