"""Which changes keep the stored answers of an evaluation, and which would mix answers to different questions."""

import pytest

from distill.evaluation.identity import asked_identity, assumed_settings, keeps_samples, settings_of
from distill.evaluation.measured_sets import measured_sets
from distill.sources.problems import load_problem_sets
from distill.storage.files import write_jsonl
from distill.storage.fingerprints import differences


def identity(recipe):
    problems = load_problem_sets(recipe).benchmarks
    by_id = {problem.id: problem for several in problems.values() for problem in several}
    return {**asked_identity(measured_sets(recipe, problems), by_id), **settings_of(recipe.eval)}


@pytest.mark.parametrize(
    ("keys", "section", "key"),
    [
        ({"samples_per_problem": 8}, {}, "k.sums"),
        ({}, {"samples_per_problem": 8}, "k.sums"),
        ({"adaptive": {"width": 0.1}}, {}, "k.sums"),
        ({"task": "exact"}, {}, "scored.sums"),
        ({"task": "instructions", "metric": "instructions"}, {}, "scored.sums"),
        ({}, {"grade_timeout_s": 1.0}, "grade_timeout_s"),
    ],
)
def test_a_change_of_grades_or_numbers_keeps_the_answers(measuring, sums, keys, section, key):
    changed = differences(identity(measuring(sums())), identity(measuring(sums(**keys), **section)))
    assert key in changed
    assert keeps_samples(changed)


@pytest.mark.parametrize(
    "keys", [{"template": "Briefly: {problem}"}, {"sampling": {"temperature": 1.0}}, {"sampling": {"max_tokens": 9}}]
)
def test_another_question_or_sampling_does_not(measuring, sums, keys):
    changed = differences(identity(measuring(sums())), identity(measuring(sums(**keys))))
    assert "asked.sums" in changed
    assert not keeps_samples(changed)


def test_a_benchmark_may_be_added_and_not_be_taken_away(measuring, sums):
    one, both = identity(measuring(sums("a"))), identity(measuring(sums("a"), sums("b", 9, 5)))
    assert keeps_samples(differences(one, both))
    # its answers would stay in the ledger, and be taken for those of a later benchmark of the same name
    assert not keeps_samples(differences(both, one))


def test_a_model_may_be_added_and_not_be_replaced():
    before = {"models": {"a": "a@1"}}
    assert keeps_samples(differences(before, {"models": {"a": "a@1", "b": "b@1"}}))
    assert not keeps_samples(differences(before, {"models": {"a": "a@2"}}))
    assert not keeps_samples(differences({"seed": 1}, {"seed": 2}))


def test_the_width_of_an_adaptive_benchmark_and_style_control_are_part_of_it(measuring, sums, tmp_path):
    def of(**keys):
        return identity(measuring(sums(**keys)))

    def of_games(**keys):
        write_jsonl(tmp_path / "games.jsonl", [{"problem": "Write.", "answer": None, "text": "A poem."}])
        games = {"source": f"file:{tmp_path}/games.jsonl", "columns": {"metadata": {"baseline": "text"}}}
        judge = {"model": "judge", "compute": {"base_urls": ["http://localhost:1/v1"]}}
        return identity(measuring({**games, "task": "judge", "metric": "arena", **keys}, judge=judge))

    wide, narrow = of(adaptive={"width": 0.2}), of(adaptive={"width": 0.1})
    assert differences(wide, narrow).keys() == {"k.sums.width"}
    assert differences(of_games(), of_games(style_control=True)).keys() == {"scored.games"}


def test_what_is_known_without_loading_the_problems(measuring, sums):
    before = identity(measuring(sums()))
    more = measuring(sums(samples_per_problem=9), grade_timeout_s=3.0)
    assumed = assumed_settings(before, more)
    assert assumed["asked"] == before["asked"]
    assert differences(before, assumed).keys() == {"k.sums", "grade_timeout_s"}
    assert assumed_settings(before, measuring(sums())) == before
