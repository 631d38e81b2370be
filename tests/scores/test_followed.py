"""IFEval's four accuracies, from results of single instructions."""

from distill.grading.instructions import InstructionResult
from distill.scores.followed import instruction_figures


def results(*pairs):
    return [InstructionResult("x", strict, loose) for strict, loose in pairs]


def test_scores_are_shares_of_what_could_be_checked():
    found = instruction_figures(
        {
            "a": [results((True, True), (True, True))],
            "b": [results((True, True), (False, True))],
            "c": [results((None, None), (False, False))],
            "d": [results((None, True), (True, True))],
        }
    )
    assert {key: figure.value for key, figure in found.items()} == {
        "prompt_strict": 1 / 3,
        "instruction_strict": 4 / 6,
        "prompt_loose": 3 / 4,
        "instruction_loose": 6 / 7,
    }
    assert found["prompt_strict"].bounds == (1 / 4, 2 / 4)
    assert found["instruction_loose"].bounds == (6 / 8, 7 / 8)
    assert found["prompt_loose"].bounds is None
    assert all(figure.interval_95[0] < figure.value < figure.interval_95[1] for figure in found.values())


def test_scores_of_nothing_are_unknown():
    assert instruction_figures({}) == {}
    assert instruction_figures({"a": [[]], "b": [results((None, None))]}) == {}
