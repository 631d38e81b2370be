"""Answers that are longer than a model's context are refused before any model is loaded."""

import json

import pytest

from distill.errors import ModelError
from distill.evaluation.context import check_context
from distill.models.hub import Model


@pytest.fixture
def small(tmp_path):
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "config.json").write_text(json.dumps({"max_position_embeddings": 2_048}))
    return Model("org/small", tmp_path / "small", "r")


def test_answers_that_leave_room_pass(measuring, sums, small):
    check_context(small, measuring(sums(), sampling={"max_tokens": 2_047}))


def test_the_benchmark_with_the_longest_answers_is_named(measuring, sums, small):
    long = sums("long", sampling={"max_tokens": 4_096})
    with pytest.raises(ModelError, match=r"4,096 tokens are asked for on long, and org/small has a context of 2,048"):
        check_context(small, measuring(sums("short"), long))


def test_a_named_protocol_that_needs_more_is_named(measuring, sums, small):
    with pytest.raises(ModelError, match=r"protocol: r1-paper\).*leave out protocol: r1-paper"):
        check_context(small, measuring(sums(), protocol="r1-paper"))


def test_a_model_that_does_not_tell_its_context_is_tried(measuring, sums, model):
    check_context(Model("org/silent", model, "r"), measuring(sums(), protocol="r1-paper"))
