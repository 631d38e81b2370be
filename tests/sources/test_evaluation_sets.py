"""Evaluation sets: loaded whole, or refused."""

import json

import pytest

from distill.errors import ProblemError
from distill.models import hub
from distill.recipe.suites import load_suite, suite_names
from distill.sources.evaluation_sets import load_pack, load_packs, make_pack


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"file:{path}"


def refusal(entry):
    with pytest.raises(ProblemError) as caught:
        load_pack(entry)
    return str(caught.value)


def test_a_file_becomes_a_pack_with_its_own_ids_and_hash(tmp_path):
    rows = [{"id": "x", "question": "What is 2 + 2?"}, {"problem": "What is 3?", "answer": "3"}]
    pack = load_pack(write(tmp_path / "own.jsonl", rows))
    assert (pack.name, pack.source) == ("own", "file:own.jsonl")
    assert pack.items == (("x", "What is 2 + 2?"), ("1", "What is 3?"))
    assert len(pack.revision) == len(pack.sha256) == 64


def test_the_hash_is_that_of_the_questions_and_not_of_their_typesetting():
    one = make_pack("a", [("1", "What is $2+2$?"), ("2", "Find $x$.")])
    assert one.sha256 == make_pack("b", [("9", "find x"), ("8", "what is 2 + 2")]).sha256
    assert one.sha256 != make_pack("a", [("1", "What is $2+3$?"), ("2", "Find $x$.")]).sha256


def test_an_unknown_name_gets_a_suggestion():
    assert "unknown evaluation set 'math500'. Did you mean 'math-500'?" in refusal("math500")
    assert all(name in refusal("nonsense") for name in suite_names())


@pytest.mark.parametrize(
    ("rows", "what"),
    [([], "is empty"), ([{"problem": "q 1"}, {"problem": " "}], ":2: no question"),
     ([{"text": "q"}], ":1: no question"),
     ([{"problem": "$$"}], "item 0 holds no question")],
)  # fmt: skip
def test_a_set_that_is_not_whole_is_refused(tmp_path, rows, what):
    assert what in refusal(write(tmp_path / "own.jsonl", rows))


def test_a_missing_file_and_a_bad_line_are_refused(tmp_path):
    assert "no such file" in refusal(f"file:{tmp_path}/none.jsonl")
    (tmp_path / "bad.jsonl").write_text('{"problem": "q"}\nnonsense\n')
    assert "bad.jsonl:2: not valid JSON" in refusal(f"file:{tmp_path}/bad.jsonl")


def test_a_name_that_the_hub_does_not_give_is_refused(monkeypatch):
    def cannot(name, config, split, revision, file):
        raise ProblemError(f"hf:{name}: cannot be loaded: gated.")

    monkeypatch.setattr("distill.sources.evaluation_sets.hub_rows", cannot)
    message = refusal("gpqa-diamond")
    assert "gpqa-diamond cannot be loaded, so nothing would be kept out" in message
    assert "hf auth login" in message


def test_a_suite_takes_its_own_column_and_its_pinned_commit(monkeypatch):
    class Rows(list):
        cache_files = [{"filename": f"/cache/x/default/0.0.0/{'ab' * 20}/x-test.arrow"}]  # noqa: RUF012

    asked = []

    def rows(*place):
        asked.append(place)
        return Rows([{"question": "What is a quark?", "id": "not this", "question_id": 7}])

    monkeypatch.setattr("distill.sources.evaluation_sets.load_hub_dataset", rows)
    pack = load_pack("mmlu-pro")
    assert asked == [("TIGER-Lab/MMLU-Pro", None, "test", load_suite("mmlu-pro").benchmark.revision)]
    assert pack.items == (("7", "What is a quark?"),)
    assert (pack.name, pack.source, pack.revision) == ("mmlu-pro", "hf:TIGER-Lab/MMLU-Pro[test]", "ab" * 20)


def test_a_suite_of_one_file_is_read_from_it(monkeypatch):
    asked = []

    def rows(*place):
        asked.append(place)
        yield "place", {"question": "not this", "Question": "What is a quark?", "Record ID": "rec1"}

    revision = load_suite("gpqa-diamond").benchmark.revision
    key = "Idavidrein/gpqa", None, "train", revision
    monkeypatch.setattr("distill.sources.evaluation_sets.hub_rows", rows)
    monkeypatch.setattr(hub, "_loaded_commits", {key: revision})
    pack = load_pack("gpqa-diamond")
    assert asked == [(*key, ["gpqa_diamond.csv"])]
    assert pack.items == (("rec1", "What is a quark?"),)
    assert (pack.source, pack.revision) == ("hf:Idavidrein/gpqa/gpqa_diamond.csv", revision)


@pytest.mark.parametrize("name", suite_names())
def test_every_suite_names_its_column(name, monkeypatch):
    columns = load_suite(name).benchmark.columns
    row = {columns.problem: "What is a quark?", columns.id or "id": "one"}
    monkeypatch.setattr("distill.sources.evaluation_sets.hub_rows", lambda *place: [("place", row)])
    monkeypatch.setattr("distill.sources.evaluation_sets.load_hub_dataset", lambda *place: [row])
    assert load_pack(name).items == (("one", "What is a quark?"),)


def test_a_dataset_of_several_splits_without_test_is_refused(monkeypatch):
    monkeypatch.setattr("distill.sources.evaluation_sets.dataset_splits", lambda name, config: ["train", "dev"])
    assert "no split 'test' but train, dev" in refusal("hf:org/dataset")
    assert "is not a dataset" in refusal("hf:dataset")


def test_revision_is_empty_where_nothing_tells_it():
    assert hub.dataset_revision([{"a": 1}]) == ""


def test_sets_of_one_name_are_refused_and_the_same_set_counts_once(tmp_path):
    (tmp_path / "b").mkdir()
    one = write(tmp_path / "own.jsonl", [{"problem": "What is 2?"}])
    other = write(tmp_path / "b" / "own.jsonl", [{"problem": "What is 3?"}])
    assert len(load_packs([one, one])) == 1
    with pytest.raises(ProblemError, match="two sets are called 'own'"):
        load_packs([one, other])
