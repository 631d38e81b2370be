"""What stages record: read by the models, from old and damaged files too."""

import pytest

from distill.errors import StoreError
from distill.filters.funnel import Funnel
from distill.results.base import Recorded
from distill.results.filter import FilterMetrics
from distill.results.import_traces import ImportMetrics
from distill.results.kinds import KINDS, fault_of, metrics_in, metrics_of

MANIFEST = {
    "stage": "filter",
    "fingerprint": "f",
    "identity": {},
    "outputs": {},
    "seconds": 1.0,
    "peak_memory_gib": 1.0,
    "finished_at": "",
}


def test_a_key_that_no_stage_writes_cannot_be_read():
    metrics = Funnel().metrics()
    with pytest.raises(AttributeError):
        _ = metrics.num_traces_kept
    assert set(FilterMetrics.model_fields) == set(metrics.to_json())


def test_a_filter_of_an_older_version_is_read():
    """Before tokens were counted by anybody, and before yields and well-formed traces were counted."""
    metrics = {"num_traces": 3, "num_kept": 1, "num_problems": 2, "num_problems_kept": 1, "dropped": {"no_think": 2}}
    assert fault_of({**MANIFEST, "metrics": metrics}, "filter") == ""
    found = FilterMetrics.from_json(metrics)
    assert (found.tokens_counted_by, found.num_well_formed, found.by_source) == (None, None, {})
    assert found.to_json() == metrics


@pytest.mark.parametrize(
    ("metrics", "says"),
    [
        ({}, "metrics.num_traces is missing"),
        ({"num_traces": True}, "metrics.num_traces is True, not a valid integer"),
        ({"num_traces": -1}, "metrics.num_traces is -1, not greater than or equal to 0"),
        ({"num_traces": 1 << 70}, "metrics.num_traces is 1180591620717411303424, not less than 9223372036854775808"),
        ({"num_traces": "3"}, "metrics.num_traces is '3', not a valid integer"),
        ({"correct_share": float("nan")}, "metrics.correct_share is nan, not a finite number"),
        ({"by_source": {"a": {"num_problems": 1}}}, "metrics.by_source.a.num_traces is missing"),
    ],
)
def test_what_is_damaged_is_said_with_its_place(metrics, says):
    whole = Funnel().metrics().to_json() if metrics else {}
    assert fault_of({**MANIFEST, "metrics": {**whole, **metrics}}, "filter") == says


def test_a_damaged_summary_names_the_stage_that_was_asked_for():
    summary = {"import": {"num_samples": "x"}, "filter": Funnel().metrics().to_json()}
    assert metrics_in(summary, FilterMetrics) == Funnel().metrics()
    with pytest.raises(StoreError, match=r"summary\.json: damaged \(import\.num_samples is 'x', not a valid integer\)"):
        metrics_in(summary, ImportMetrics)


def test_a_teams_own_stage_may_record_anything():
    found = metrics_of("count", {"stage": "filter", "metrics": {"num_numbers": 3}})
    assert type(found) is Recorded
    assert found.num_numbers == 3
    assert fault_of({**MANIFEST, "stage": "count", "metrics": {"num_numbers": 3}}, "count") == ""
    assert all(kind.metrics is not Recorded for kind in KINDS.values())
