"""Details of lighteval: their columns beside those that lighteval 0.13 itself wrote, and what is in them."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distill.exchange.lighteval_details import write_lighteval_details

GOLDEN = Path(__file__).parent / "golden"
SECRET_TEXT = "the aardvark of Zanzibar"


def written(folder, target, **options):
    paths = write_lighteval_details(folder, target, **options)
    results = [json.loads(path.read_text()) for path in paths if path.suffix == ".json"]
    details = {path.name.split("_")[1]: path for path in paths if path.suffix == ".parquet" and "org" in path.parts}
    return paths, results, details


def test_columns_are_those_of_the_real_package(evaluation, tmp_path):
    _, _, details = written(evaluation, tmp_path / "out")
    theirs = pq.read_schema(GOLDEN / "lighteval_details.parquet")
    ours = pq.read_schema(details["sums|0"])
    assert ours.names == theirs.names == ["doc", "metric", "model_response"]
    for column in ("doc", "model_response"):
        fields = {field.name: field.type for field in ours.field(column).type}
        assert list(fields) == [field.name for field in theirs.field(column).type]
        for field in theirs.field(column).type:
            known = field.type not in (pa.null(), pa.list_(pa.null()))
            assert not known or fields[field.name] == field.type, field.name


def test_a_row_is_a_problem_with_all_its_samples(evaluation, tmp_path):
    _, _, details = written(evaluation, tmp_path / "out")
    first, second = pq.read_table(details["sums|0"]).to_pylist()
    assert first["doc"]["query"] == "What is 1 + 2?"
    assert (first["doc"]["choices"], first["doc"]["gold_index"]) == (["3"], 0)
    assert first["metric"] == {"avg@n:n=2": 0.5}
    assert first["model_response"]["text"][0].startswith("<think>")
    assert first["model_response"]["text_post_processed"] == ["It is \\boxed{3}.", "It is 4."]
    assert first["model_response"]["reasonings"] == ["1 + 2 = 3", None]
    assert second["metric"] == {"avg@n:n=2": 1.0}  # of the answer that could be graded
    assert second["doc"]["specific"]["num_ungraded"] == 1
    (zoo,) = pq.read_table(details["zoo|0"]).to_pylist()
    assert (zoo["doc"]["choices"], zoo["doc"]["gold_index"]) == (["Here", "There"], 1)
    assert zoo["doc"]["instruction"] == "Be brief."


def test_partial_credit_counts_as_it_is(evaluation, credit, tmp_path):
    credit(evaluation / "base", 0.5, 0.75)
    _, (base, _), details = written(evaluation, tmp_path / "out")
    first, _ = pq.read_table(details["sums|0"]).to_pylist()
    assert first["metric"] == {"avg@n:n=2": 0.625}
    assert base["results"]["sums|0"]["avg@n:n=2"] == pytest.approx((0.625 + 1.0) / 2)


def test_results_have_the_keys_of_the_real_package(evaluation, tmp_path):
    _, (base, student), _ = written(evaluation, tmp_path / "out")
    theirs = json.loads((GOLDEN / "lighteval_results.json").read_text())
    assert theirs.keys() <= base.keys()
    assert theirs["config_general"].keys() <= base["config_general"].keys()
    assert base["results"]["sums|0"]["avg@n:n=2"] == 0.75
    assert base["results"]["sums|0"]["avg@n:n=2_stderr"] == pytest.approx(0.25)
    assert base["results"]["all"]["avg@n:n=1"] == 1.0
    assert student["config_general"]["model_name"] == "small/student"


def test_folders_are_those_of_the_real_package(evaluation, tmp_path):
    paths, _, _ = written(evaluation, tmp_path / "out")
    places = [path.relative_to(tmp_path / "out").parts for path in paths]
    assert places[0][:3] == ("results", "org", "base-model")
    date = places[0][-1].removeprefix("results_").removesuffix(".json")
    assert places[1] == ("details", "org", "base-model", date, f"details_sums|0_{date}.parquet")


def test_missing_and_failed_samples_are_counted_and_no_zeros(incomplete, tmp_path):
    _, (base, _), details = written(incomplete, tmp_path / "out")
    _, second = pq.read_table(details["sums|0"]).to_pylist()
    assert second["metric"] == {"avg@n:n=2": None}
    assert second["doc"]["specific"] | {"task": "", "source": ""} == {
        "task": "",
        "source": "",
        "sample_indices": [0],
        "num_missing": 1,
        "num_failed": 0,
        "num_ungraded": 1,
    }
    (zoo,) = pq.read_table(details["zoo|0"]).to_pylist()
    assert zoo["model_response"]["text"] == []
    assert base["results"]["sums|0"] == {"avg@n:n=2": 0.5}
    assert base["results"]["zoo|0"] == {}
    assert base["distill"]["zoo|0"]["num_failed"] == 1


def test_withheld_texts_are_in_no_file(evaluation, tmp_path):
    paths, _, details = written(evaluation, tmp_path / "out", withheld={"zoo"})
    assert not any(SECRET_TEXT.encode() in path.read_bytes() for path in paths)
    (zoo,) = pq.read_table(details["zoo|0"]).to_pylist()
    assert SECRET_TEXT not in json.dumps(zoo)
    assert "There" not in json.dumps(zoo)
    assert zoo["metric"] == {"avg@n:n=1": 1.0}
