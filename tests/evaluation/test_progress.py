"""How far an evaluation is, from its files."""

import pytest

from distill.core.records import Trace
from distill.evaluation.measured_sets import write_sets
from distill.evaluation.progress import forget_if_empty, num_answers
from distill.storage.files import write_json
from distill.storage.layout import BENCHMARKS, IDENTITY
from distill.storage.ledger import Ledger


def store(folder, role, *reasons):
    with Ledger(folder / role / "ledger.jsonl") as ledger:
        ledger.append(
            Trace("a", index, role, "r", "x", "", "x", reason, 1, 1, 0) for index, reason in enumerate(reasons)
        )


def test_answers_are_counted_over_models_and_benchmarks_with_their_own_k(tmp_path, measured_set):
    write_sets(tmp_path / BENCHMARKS, [measured_set("one", "abc", 2), measured_set("two", "de", 8)])
    write_json(tmp_path / IDENTITY, {"models": {"m": "org/m@1", "n": "org/n@1"}})
    store(tmp_path, "m", "stop", "length", "error")
    store(tmp_path, "n", "stop")
    assert num_answers(tmp_path) == {"num_done": 4, "num_wanted": 2 * (3 * 2 + 2 * 8), "unit": "answers"}
    assert num_answers(tmp_path, num_models=1)["num_wanted"] == 22


def test_samples_that_an_adaptive_benchmark_does_not_need_are_not_wanted(tmp_path, measured_set):
    write_sets(tmp_path / BENCHMARKS, [measured_set("one", "a", 8, adaptive={"width": 0.3, "min_samples": 2})])
    store(tmp_path, "m", "stop", "stop")
    assert num_answers(tmp_path, num_models=1)["num_wanted"] == 8
    with Ledger(tmp_path / "m" / "ledger.jsonl") as ledger:
        ledger.skip([("a", index) for index in range(2, 8)], "narrow enough")
    assert num_answers(tmp_path, num_models=1) == {"num_done": 2, "num_wanted": 2, "unit": "answers"}


@pytest.mark.parametrize("content", [None, "", "{", '{"name": 1}\n'])
def test_benchmarks_that_are_missing_or_damaged_leave_the_number_open(tmp_path, content):
    if content is not None:
        (tmp_path / BENCHMARKS).write_text(content)
    assert num_answers(tmp_path, num_models=2) == {"num_done": 0, "num_wanted": None, "unit": "answers"}


def test_ledgers_without_a_single_answer_are_forgotten(tmp_path):
    store(tmp_path, "m", "error")
    store(tmp_path, "n")
    assert forget_if_empty(tmp_path)
    assert not list(tmp_path.glob("*/ledger.jsonl"))
    store(tmp_path, "m", "error", "stop")
    assert not forget_if_empty(tmp_path)
    assert (tmp_path / "m" / "ledger.jsonl").exists()
