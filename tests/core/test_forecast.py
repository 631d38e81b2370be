"""How long sampling goes on, told from samples that have finished and from those that have not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.core.forecast import NUM_MARKS, RECENT_S, Drawn, Rate, SamplingForecast, tokens_left, tokens_left_of


def drawn(**changes):
    counts = {
        "num_finished": 0,
        "num_errors": 0,
        "num_tokens": 0,
        "num_in_flight": 0,
        "num_tokens_in_flight": 0,
        "num_waiting": 0,
    }
    return Drawn(**(counts | changes))


def looks(lengths, num_in_flight, max_tokens, is_known=True, tick_s=0.25):
    """Samples of these lengths drawn side by side, a token of each at a time: (moment, outlook) every so often.

    The second value is when the last one has finished.
    """
    forecast = SamplingForecast(max_tokens, 0.0)
    waiting, flying, finished, found = list(reversed(lengths)), [], [], []
    tick = 0
    while waiting or flying:
        tick += 1
        while waiting and len(flying) < num_in_flight:
            flying.append([0, waiting.pop()])
        for sample in flying:
            sample[0] += 1
        finished += [length for so_far, length in flying if so_far == length]
        flying = [sample for sample in flying if sample[0] < sample[1]]
        if tick % 4 == 0:
            now = drawn(
                num_finished=len(finished),
                num_tokens=sum(finished),
                num_in_flight=len(flying),
                num_tokens_in_flight=sum(so_far for so_far, _ in flying) if is_known else None,
                num_waiting=len(waiting),
            )
            found.append((tick * tick_s, forecast.look(now, tick * tick_s)))
    return found, tick * tick_s


def test_what_is_in_flight_counts_for_the_rate_and_nothing_is_forecast_before_a_sample_has_finished():
    forecast = SamplingForecast(192, 0.0)
    outlook = forecast.look(drawn(num_in_flight=255, num_tokens_in_flight=255 * 12, num_waiting=819), 60.0)
    assert outlook.tokens_per_s == pytest.approx(51.0)
    assert outlook.seconds_left is None


def test_the_first_short_sample_among_many_is_not_taken_for_the_pace_of_all():
    """One in a minute would be 18 hours; no sample can be longer than max_tokens."""
    forecast = SamplingForecast(192, 0.0)
    flying = {"num_in_flight": 255, "num_tokens_in_flight": 255 * 12, "num_waiting": 818}
    outlook = forecast.look(drawn(num_finished=1, num_tokens=12, **flying), 60.0)
    assert outlook.seconds_left == pytest.approx(((818 + 255) * 192 - 255 * 12) / outlook.tokens_per_s)
    assert outlook.seconds_left < 4_000


LENGTHS = {
    "equal": [60] * 2_000,
    "spread": [20 + (i * 37) % 160 for i in range(2_000)],
    "two kinds": [20 if i % 4 else 180 for i in range(2_000)],
    "mostly cut off": [190 if i % 10 else 30 for i in range(2_000)],
}


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS.keys())
@pytest.mark.parametrize("is_known", [True, False], ids=["known", "unknown"])
def test_a_forecast_comes_true(lengths, is_known):
    found, end_s = looks(lengths, 64, 192, is_known)
    said = [(now_s, outlook.seconds_left) for now_s, outlook in found]
    early = [(end_s - now_s, left) for now_s, left in said if 0.15 * end_s < now_s < 0.65 * end_s]
    assert len(early) > 100
    assert all(left == pytest.approx(true_left, rel=0.25) for true_left, left in early)


def test_where_nobody_knows_what_is_in_flight_short_samples_that_finish_first_are_not_taken_for_all():
    found, end_s = looks([2 + i for i in range(200)] + [200] * 400, 200, 200, is_known=False)
    first_s, first = next((now_s, outlook.seconds_left) for now_s, outlook in found if outlook.seconds_left is not None)
    assert first_s > 20
    assert 0.4 * (end_s - first_s) < first < 2.5 * (end_s - first_s)


@given(
    num_finished=st.integers(0, 10**6),
    num_errors=st.integers(0, 10**6),
    num_tokens=st.integers(0, 10**9),
    num_in_flight=st.integers(0, 10**4),
    num_tokens_in_flight=st.none() | st.integers(0, 10**9),
    num_waiting=st.integers(0, 10**6),
    max_tokens=st.integers(1, 10**5),
    elapsed_s=st.floats(1e-6, 10**7),
)
def test_never_negative_and_never_longer_than_if_all_were_as_long_as_can_be(max_tokens, elapsed_s, **counts):
    now = drawn(**counts)
    outlook = SamplingForecast(max_tokens, 0.0).look(now, elapsed_s)
    assert outlook.tokens_per_s >= 0
    if (num := tokens_left(now, max_tokens)) is not None:
        so_far = now.num_tokens_in_flight or 0
        assert 0 <= num <= now.num_waiting * max_tokens + max(0, now.num_in_flight * max_tokens - so_far)
    if outlook.seconds_left is None:
        return
    assert outlook.seconds_left >= 0
    assert now.num_finished + now.num_errors > 0
    assert outlook.seconds_left > 0 or not (now.num_waiting + now.num_in_flight) or not num


def test_errors_are_no_short_samples():
    flying = {"num_finished": 10, "num_tokens": 1_000, "num_waiting": 100}
    assert tokens_left(drawn(**flying, num_errors=50), 192) == tokens_left(drawn(**flying), 192) == 100 * 100


def test_a_rate_forgets_a_slow_start():
    rate = Rate(0.0)
    for second in range(1, 601):
        rate.note(second, 0 if second < 300 else 20 * (second - 300))
    assert rate.per_s == pytest.approx(20.0)


@given(st.lists(st.tuples(st.floats(0.001, 100.0), st.integers(0, 1_000)), min_size=1, max_size=300))
def test_a_rate_is_that_of_some_last_things_however_seldom_they_are_done(steps):
    rate, now_s, total = Rate(0.0), 0.0, 0
    for took_s, num in steps:
        now_s, total = now_s + took_s, total + num
        rate.note(now_s, total)
    per_step = [num / took_s for took_s, num in steps]
    assert 0 <= rate.per_s <= max(per_step) * 1.001
    if now_s <= RECENT_S or len(steps) < NUM_MARKS:
        assert rate.per_s == pytest.approx(total / now_s)


def test_fewer_things_than_before_are_no_negative_rate():
    """A replica that dies takes what it had in flight with it."""
    rate = Rate(0.0)
    rate.note(10.0, 500)
    rate.note(20.0, 300)
    assert rate.per_s == 15.0
    rate.note(30.0, 0)
    assert rate.per_s == 0.0


def test_sets_are_forecast_each_at_its_own_length():
    long = drawn(num_finished=10, num_tokens=90_000, num_waiting=5)
    short = drawn(num_finished=20, num_tokens=200, num_in_flight=2, num_tokens_in_flight=0, num_waiting=8)
    assert tokens_left_of([(long, 9_000), (short, 100)]) == pytest.approx(5 * 9_000 + 10 * 10)
    assert tokens_left_of([(short, 100)]) == tokens_left(short, 100)


def test_a_set_that_has_not_begun_is_expected_to_be_like_the_others_within_its_own_limit():
    begun, new = drawn(num_finished=10, num_tokens=5_000), drawn(num_waiting=4)
    assert tokens_left_of([(begun, 9_000), (new, 9_000)]) == 4 * 500
    assert tokens_left_of([(begun, 9_000), (new, 100)]) == 4 * 100
    assert tokens_left_of([(new, 9_000), (new, 100)]) is None
    outlook = SamplingForecast(9_000, 0.0).look(
        drawn(num_finished=10, num_tokens=5_000, num_waiting=4), 10.0, [(begun, 9_000), (new, 100)]
    )
    assert (outlook.tokens_per_s, outlook.seconds_left) == (500.0, 0.8)
