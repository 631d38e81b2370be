"""A finished stage in a few words."""

import pytest

from distill.core.plurals import counted
from distill.results.generate import GenerateMetrics
from distill.results.import_traces import ImportMetrics
from distill.stages import generate, import_traces

NO_ERRORS = {"finish_reasons": {"error": 0}}


@pytest.mark.parametrize(
    ("skipped", "says"),
    [
        ({}, "1 trace of 1 problem"),
        ({"it has no text.": 1}, "1 trace of 1 problem, 1 row left out (it has no text)"),
        (
            {"it has no text.": 1, "it has no question.": 3},
            "1 trace of 1 problem, 4 rows left out (mostly: it has no question)",
        ),
    ],
)
def test_an_import_says_why_it_left_rows_out(skipped, says):
    counts = {"num_samples": 1, "num_problems": 1, "num_problems_by_source": {"file:a": 1}}
    metrics = ImportMetrics(**counts, **NO_ERRORS, num_skipped=sum(skipped.values()), skipped=skipped)
    assert import_traces.headline(metrics) == says


def test_an_import_of_an_older_distill_counts_without_reasons():
    counts = {"num_samples": 2, "num_problems": 2, "num_problems_by_source": {"file:a": 2}}
    metrics = ImportMetrics(**counts, **NO_ERRORS, num_skipped=2)
    assert import_traces.headline(metrics) == "2 traces of 2 problems, 2 rows left out"


@pytest.mark.parametrize(("num", "says"), [(1, "1 sample of 1 problem by t"), (4, "4 samples of 1 problem by t")])
def test_one_of_a_kind_is_not_written_as_several(num, says):
    metrics = {
        "num_samples": num,
        "num_problems": 1,
        "num_problems_by_source": {"file:a": 1},
        "samples_per_problem": num,
    }
    metrics |= {"teacher": "t", "teacher_revision": "", "num_prompt_tokens": 1, "num_completion_tokens": 1, **NO_ERRORS}
    assert generate.headline(GenerateMetrics.from_json(metrics)) == says


def test_nouns_follow_their_number():
    assert [counted(1, "pass", "passes"), counted(0, "row"), counted(2_400, "trace")] == [
        "1 pass",
        "0 rows",
        "2,400 traces",
    ]
