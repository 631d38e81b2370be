"""What is asked, and the hash of the protocol: what changes it, what does not, and the field that is named."""

import pytest

from distill.errors import UserError
from distill.evaluation import measured_sets
from distill.evaluation.measured_sets import measured_sets as sets_of
from distill.evaluation.measured_sets import read_sets, template_of, with_baselines, write_sets
from distill.results.eval import Protocol, protocol_difference
from distill.sources.problems import load_problem_sets
from distill.storage.files import write_jsonl

JUDGE = {"model": "judge", "compute": {"base_urls": ["http://localhost:1/v1"]}}


def asked(recipe):
    return sets_of(recipe, with_baselines(recipe, load_problem_sets(recipe).benchmarks))


def protocol(recipe):
    return asked(recipe)[0].protocol


@pytest.fixture
def choices(tmp_path):
    rows = [{"question": f"Which is {i}?", "choices": ["one", "two", "three", str(i)], "answer": "D"} for i in range(9)]
    write_jsonl(tmp_path / "choices.jsonl", rows)
    return {"source": f"file:{tmp_path}/choices.jsonl", "task": "choice", "template": "{problem}\n{options}"}


@pytest.fixture
def facts(tmp_path):
    write_jsonl(tmp_path / "facts.jsonl", [{"problem": "Who?", "answer": "She"}])
    return {"source": f"file:{tmp_path}/facts.jsonl", "task": "judge", "metric": "short-answers"}


def test_every_benchmark_has_its_own_samples_and_sampling(measuring, sums):
    short = sums("short", samples_per_problem=3, sampling={"max_tokens": 8, "temperature": 1.0})
    recipe = measuring(sums("plain"), short, samples_per_problem=2)
    plain, short = asked(recipe)
    assert (plain.name, plain.samples_per_problem, plain.sampling["max_tokens"]) == ("plain", 2, 64)
    assert (short.name, short.samples_per_problem, short.sampling["max_tokens"]) == ("short", 3, 8)
    assert (plain.sampling["temperature"], short.sampling["temperature"]) == (0.6, 1.0)
    assert [one.protocol.samples_per_problem for one in (plain, short)] == [2, 3]


def test_one_problem_that_is_sampled_in_two_ways_has_two_ids(measuring, sums):
    same = asked(measuring(sums("one"), sums("two")))
    assert same[0].problems == same[1].problems
    for keys in (
        {"samples_per_problem": 9},
        {"sampling": {"max_tokens": 8}},
        {"adaptive": {"width": 0.1, "min_samples": 1}},
    ):
        one, two = asked(measuring(sums("one"), sums("two", **keys)))
        assert two.problems == [f"two/{name}" for name in one.problems]


def test_one_problem_that_is_graded_in_two_ways_has_two_ids(measuring, tmp_path):
    rows = [{"id": str(i), "problem": f"What is {i}?", "answer": str(i), "level": i, "text": "No."} for i in range(3)]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    columns = {"id": "id"}
    first = {"source": f"file:{tmp_path}/rows.jsonl", "columns": columns, "task": "exact"}
    judged = {"task": "judge", "metric": "short-answers"}
    games = {"task": "judge", "metric": "win-rate", "columns": columns | {"metadata": {"baseline": "text"}}}
    for second in (
        {"task": "numeric"},
        {"columns": columns | {"metadata": {"group": "level"}}},
        judged,
        games,
    ):
        recipe = measuring(first, first | second, judge=JUDGE)
        one, two = asked(recipe)
        assert one.problems == ["0", "1", "2"]
        assert two.problems == [f"rows+/{name}" for name in one.problems]
        problems = [problem for several in load_problem_sets(recipe).benchmarks.values() for problem in several]
        assert len({problem.id for problem in problems}) == 6
    (tmp_path / "wording.txt").write_text("{question} {reference} {answer} VERDICT: CORRECT or …")
    worded = judged | {"judge_template": f"file:{tmp_path}/wording.txt"}
    one, two = asked(measuring(first | judged, first | worded, judge=JUDGE))
    assert not set(one.problems) & set(two.problems)


def test_items_of_a_suite_carry_its_name(measuring):
    (one,) = asked(measuring({"suite": "gym:chain_sum", "limit": 3}))
    assert one.name == "chain_sum"
    assert all(name.startswith("chain_sum/") for name in one.problems)
    assert one.protocol.suite == "gym:chain_sum"


@pytest.mark.parametrize(
    ("keys", "field"),
    [
        ({"template": "Answer briefly: {problem}"}, "prompt"),
        ({"sampling": {"temperature": 0.7}}, "temperature"),
        ({"sampling": {"top_p": 0.5}}, "top_p"),
        ({"sampling": {"top_k": 5}}, "top_k"),
        ({"sampling": {"max_tokens": 63}}, "max_tokens"),
        ({"task": "exact"}, "grader"),
        ({"name": "other", "first": 1}, "problems_sha256"),
    ],
)
def test_what_changes_the_protocol_is_named(measuring, sums, keys, field):
    before, after = protocol(measuring(sums())), protocol(measuring(sums(**keys)))
    assert before.hash != after.hash
    assert f"{field}: " in protocol_difference(before, after)


def test_the_graders_version_changes_the_protocol(measuring, sums, monkeypatch):
    before = protocol(measuring(sums()))
    monkeypatch.setattr(measured_sets, "GRADER_VERSION", "another")
    after = protocol(measuring(sums()))
    assert before.hash != after.hash
    assert protocol_difference(before, after).startswith("grader: 'math, version ")


@pytest.mark.parametrize("change", [{"model": "other"}, {"max_chars": 100}, {"sampling": {"temperature": 0.5}}])
def test_the_judge_and_its_settings_change_the_protocol(measuring, facts, change):
    before, after = (protocol(measuring(facts, judge=judge)) for judge in (JUDGE, JUDGE | change))
    assert before.hash != after.hash
    assert protocol_difference(before, after).startswith("judge: ")


def test_where_the_judge_runs_does_not_change_the_protocol(measuring, facts):
    elsewhere = JUDGE | {"compute": {"base_urls": ["http://elsewhere:2/v1"], "max_in_flight": 3}}
    assert protocol(measuring(facts, judge=JUDGE)) == protocol(measuring(facts, judge=elsewhere))


def test_another_wording_for_the_judge_changes_the_protocol(measuring, facts, tmp_path):
    (tmp_path / "wording.txt").write_text("Grade.\n---\n{question} {reference} {answer} VERDICT: CORRECT or …")
    worded = facts | {"judge_template": f"file:{tmp_path}/wording.txt"}
    before, after = protocol(measuring(facts, judge=JUDGE)), protocol(measuring(worded, judge=JUDGE))
    assert before.hash != after.hash
    assert "wording" in protocol_difference(before, after)
    assert template_of(worded["judge_template"]) == ("{question} {reference} {answer} VERDICT: CORRECT or …", "Grade.")
    (tmp_path / "wording.txt").write_text("{question} {answer}")
    with pytest.raises(UserError, match=r"lacks \{reference\}"):
        asked(measuring(worded, judge=JUDGE))
    with pytest.raises(UserError, match=r"gone\.txt cannot be read"):
        asked(measuring(facts | {"judge_template": f"file:{tmp_path}/gone.txt"}, judge=JUDGE))


def test_a_wording_without_verdicts_that_can_be_read_is_refused_before_a_judge_is_paid(measuring, facts, tmp_path):
    (tmp_path / "wording.txt").write_text("{question} {reference} {answer}\nA: CORRECT, B: INCORRECT")
    worded = facts | {"judge_template": f"file:{tmp_path}/wording.txt"}
    with pytest.raises(UserError, match=r"no line such as VERDICT: CORRECT.*judge_labels"):
        asked(measuring(worded, judge=JUDGE))
    labels = {"A": "correct", "B": "incorrect"}
    (one,) = asked(measuring(worded | {"judge_labels": labels}, judge=JUDGE))
    assert one.judge_labels == labels
    others = protocol(measuring(worded | {"judge_labels": {"A": "incorrect", "B": "correct"}}, judge=JUDGE))
    assert protocol_difference(one.protocol, others).startswith("judge: ")


def test_how_a_judges_text_is_read_is_part_of_the_protocol(measuring, facts, monkeypatch):
    before = protocol(measuring(facts, judge=JUDGE))
    monkeypatch.setattr(measured_sets, "COMPARISON_VERSION", "another")
    assert protocol_difference(before, protocol(measuring(facts, judge=JUDGE))).startswith("judge: ")


def test_the_order_of_the_options_changes_the_protocol(measuring, choices):
    plain, shuffled = protocol(measuring(choices)), protocol(measuring({**choices, "shuffle_options": True}))
    assert plain.hash != shuffled.hash
    difference = protocol_difference(plain, shuffled)
    assert "options: None and 'shuffled for each question'" in difference
    assert "problems_sha256" in difference


def test_the_baselines_answers_change_the_protocol(measuring, tmp_path):
    write_jsonl(tmp_path / "tasks.jsonl", [{"instruction": "Write."}])
    games = {"source": f"file:{tmp_path}/tasks.jsonl", "task": "judge", "metric": "win-rate"}

    def answered(text):
        write_jsonl(tmp_path / "baseline.jsonl", [{"instruction": "Write.", "output": text}])
        baseline = {"source": f"file:{tmp_path}/baseline.jsonl", "name": "other"}
        return protocol(measuring({**games, "baseline": baseline}, judge=JUDGE))

    assert "problems_sha256" in protocol_difference(answered("A poem."), answered("A novel."))


def test_more_samples_and_another_engine_are_the_same_protocol(measuring, sums):
    before = protocol(measuring(sums(), samples_per_problem=2))
    after = protocol(measuring(sums(samples_per_problem=64), compute={"engine": "transformers"}))
    assert before.hash == after.hash
    assert protocol_difference(before, after) == ""
    assert before.model_copy(update={"engine": "vllm 1", "interval": "another"}).with_hash().hash == before.hash


def test_protocols_of_an_older_version_are_compared_by_what_both_state():
    old = Protocol(samples_per_problem=4, temperature=0.6, max_tokens=10, extraction="last number")
    new = Protocol(samples_per_problem=8, temperature=0.6, max_tokens=20, extraction="last number", suite="s")
    assert protocol_difference(old, new.with_hash()) == "max_tokens: 10 and 20"


def test_a_named_protocol_sets_the_sampling_of_every_benchmark(measuring, sums):
    (one,) = asked(measuring(sums(), protocol="r1-paper", sampling={"max_tokens": 64, "temperature": 1.0}))
    assert (one.sampling["temperature"], one.sampling["top_p"], one.sampling["max_tokens"]) == (0.6, 0.95, 32_768)
    assert one.protocol.named == "r1-paper"
    plain = {"temperature": 0.6, "top_p": 0.95, "top_k": 0, "max_tokens": 32_768}
    (other,) = asked(measuring(sums(), sampling=plain))
    assert other.protocol.hash == one.protocol.hash  # the name alone changes nothing


def test_sets_are_read_as_they_were_written(measuring, sums, tmp_path):
    sets = asked(measuring(sums(adaptive={"width": 0.1}, canary=True)))
    write_sets(tmp_path / "benchmarks.jsonl", sets)
    assert read_sets(tmp_path / "benchmarks.jsonl") == sets
    (tmp_path / "benchmarks.jsonl").write_text('{"name": "half"')
    with pytest.raises(UserError, match="cannot be read as benchmarks"):
        read_sets(tmp_path / "benchmarks.jsonl")
