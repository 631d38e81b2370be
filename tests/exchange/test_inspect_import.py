"""Logs of Inspect that are read: those that the real package (0.3.285) wrote, and what a hostile one may hold."""

import copy
import io
import json
import zipfile
import zlib
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distill.errors import ExchangeError
from distill.exchange import inspect_files
from distill.exchange.inspect_import import ImportedLog, as_correct, read_inspect_log

GOLDEN = Path(__file__).parent / "golden"
SUMS = json.loads((GOLDEN / "sums.json").read_text())


def write_log(tmp_path, change=lambda log: None):
    log = copy.deepcopy(SUMS)
    changed = change(log)
    path = tmp_path / "log.json"
    path.write_text(json.dumps(changed if isinstance(changed, dict) else log))
    return path


@pytest.mark.parametrize("name", ["sums.json", "sums.eval"])
def test_both_formats_of_the_real_package_say_the_same(name):
    log = read_inspect_log(GOLDEN / name)
    assert (log.task, log.scorer, log.status, log.why_incomplete) == ("sums", "match", "success", "")
    assert (log.model, log.samples_per_problem, log.num_wanted) == ("openai-api/distill/student", 2, 4)
    assert {(one.question, one.answer) for one in log.problems} == {("What is 1 + 2?", "3"), ("What is 2 + 3?", "5")}
    assert len(log.traces) == len(log.verdicts) == 4
    answers = {problem.id: problem.answer for problem in log.problems}
    assert all(one.correct is (answers[one.problem_id] == "3") for one in log.verdicts)
    trace = log.traces[0]
    assert (trace.reasoning, trace.content) == ("Let me see.", "The answer is 3")
    assert trace.text == "<think>\nLet me see.\n</think>\n\nThe answer is 3"
    assert (trace.num_prompt_tokens, trace.num_completion_tokens, trace.finish_reason) == (7, 5, "stop")
    assert {(one.name, one.value) for one in log.metrics} == {("accuracy", 0.5), ("stderr", 0.5)}
    assert log.protocol["temperature"] == 0.6
    assert log.protocol["harness"] == "inspect_ai 0.3.285"


def test_ids_are_the_same_in_both_formats():
    one, other = (read_inspect_log(GOLDEN / name) for name in ("sums.json", "sums.eval"))
    assert {trace.key for trace in one.traces} == {trace.key for trace in other.traces}


def test_the_prompt_is_what_the_solver_asked():
    (problem,) = read_inspect_log(GOLDEN / "colours.json").problems
    assert problem.question.startswith("Answer the following multiple choice question")
    assert problem.metadata["options"] == ["Blue", "Red"]


def test_members_without_compression_and_with_deflate(tmp_path):
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        path = tmp_path / f"{method}.eval"
        with zipfile.ZipFile(path, "w", method) as archive:
            archive.writestr("header.json", json.dumps({key: SUMS[key] for key in SUMS if key != "samples"}))
            for sample in SUMS["samples"]:
                archive.writestr(f"samples/{sample['id']}_epoch_{sample['epoch']}.json", json.dumps(sample))
        assert len(read_inspect_log(path).traces) == 4


def test_a_killed_evaluation_has_no_header_yet(tmp_path):
    path = tmp_path / "killed.eval"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("_journal/start.json", json.dumps({key: SUMS[key] for key in ("version", "eval", "plan")}))
        archive.writestr("samples/s1_epoch_1.json", json.dumps(SUMS["samples"][0]))
    log = read_inspect_log(path)
    assert (log.status, log.num_wanted, log.num_missing) == ("started", 4, 3)
    assert "3 are missing" in log.why_incomplete


@pytest.mark.parametrize(
    ("value", "correct"),
    [
        *(("C", True), ("I", False), ("N", False), ("P", None), ("yes", True), ("False", False), ("1", True)),
        *((1, True), (0, False), (1.0, True), (0.5, None), (True, True), (float("nan"), None), (None, None)),
        *(([1, 0], None), ({"a": 1}, None), ("x" * 10_000_000, None), ("9" * 5000, None), (10**400, None)),
    ],
    ids=lambda value: repr(value)[:12],
)
def test_values_of_scores(value, correct):
    assert as_correct(value) is correct


def scored(values):
    def change(log):
        for sample, value in zip(log["samples"], values, strict=True):
            sample["scores"] = value

    return change


def test_partial_credit_and_no_score_are_not_wrong(tmp_path):
    values = [{"match": {"value": "P"}}, {}, None, {"match": {"value": float("nan"), "explanation": "no verdict"}}]
    log = read_inspect_log(write_log(tmp_path, scored(values)))
    assert [one.correct for one in log.verdicts] == [None] * 4
    assert log.num_ungraded == 4
    assert {one.details.get("inspect_value") for one in log.verdicts} == {'"P"', None, "NaN"}


def test_one_of_several_values_is_named_by_its_key(tmp_path):
    path = write_log(tmp_path, scored([{"match": {"value": {"strict": 1, "loose": 0}}}] * 4))
    assert {one.correct for one in read_inspect_log(path, "match/strict").verdicts} == {True}
    assert {one.correct for one in read_inspect_log(path, "match/loose").verdicts} == {False}
    with pytest.raises(ExchangeError, match=r"by 'match/odd'\. .*match/loose, match/strict"):
        read_inspect_log(path, "match/odd")
    with pytest.raises(ExchangeError, match="Scorers: match, match/loose, match/strict"):
        read_inspect_log(path)


def test_a_scorer_whose_name_has_a_slash(tmp_path):
    path = write_log(tmp_path, scored([{"pack/judge": {"value": "C"}}] * 4))
    assert {one.correct for one in read_inspect_log(path, "pack/judge").verdicts} == {True}


def test_a_failed_sample_is_an_error_with_its_words(tmp_path):
    def change(log):
        log["samples"][0]["error"] = {"message": "HTTP 500", "traceback": "", "traceback_ansi": ""}

    log = read_inspect_log(write_log(tmp_path, change))
    assert log.num_failed == 1
    failed = next(one for one in log.traces if one.finish_reason == "error")
    assert failed.error == "HTTP 500"
    assert next(one for one in log.verdicts if one.key == failed.key).correct is None
    assert "1 failed" in log.why_incomplete
    assert "HTTP 500" in log.why_incomplete


def test_a_text_in_an_attachment(tmp_path):
    def change(log):
        log["samples"][0]["attachments"] = {"a" * 32: "What is 1 + 2?"}
        log["samples"][0]["messages"][0]["content"] = f"attachment://{'a' * 32}"

    assert read_inspect_log(write_log(tmp_path, change)).problems[0].question == "What is 1 + 2?"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda log: log.pop("eval"), "eval is missing"),
        (lambda log: log["eval"].update(task=3), "eval.task is 3, not a text"),
        (lambda log: log.update(samples=[]), "has no samples"),
        (lambda log: log.update(samples={}), "has no samples"),
        (lambda log: log.update(samples=7), "samples is not a list"),
        (lambda log: log.update(samples=[7]), "samples.0 is not an object"),
        (lambda log: log["samples"][1].update(epoch=0), "samples.1.epoch is 0"),
        (lambda log: log["samples"][1].update(epoch="x"), "samples.1.epoch is 'x'"),
        (lambda log: log["samples"][0].pop("target"), "samples.0.target is missing"),
        (lambda log: log["samples"][0]["messages"][0].update(content=[{"type": "image", "image": "x"}]), "'image'"),
        (lambda log: log["samples"][0]["messages"][0].update(role="tool"), "with tools cannot be imported"),
        (lambda log: log["samples"][0]["messages"][0].update(content="attachment://" + "b" * 32), "is not in the log"),
        (lambda log: log["samples"][0]["output"].update(usage={"input_tokens": 1 << 70}), "usage.input_tokens"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(tmp_path, change, words):
    with pytest.raises(ExchangeError, match=r"log\.json") as raised:
        read_inspect_log(write_log(tmp_path, lambda log: change(log) and None))
    assert words in str(raised.value)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 100_000, b'{"version": ' + b"9" * 9999],
    ids=range(8),
)
def test_a_file_that_is_no_log(tmp_path, content):
    for name in ("log.json", "log.eval"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ExchangeError, match=name):
            read_inspect_log(tmp_path / name)


def test_what_is_no_file(tmp_path):
    with pytest.raises(ExchangeError, match="there is no such file"):
        read_inspect_log(tmp_path / "log.eval")
    with pytest.raises(ExchangeError, match="is a folder"):
        read_inspect_log(tmp_path)
    (tmp_path / "log.csv").touch()
    with pytest.raises(ExchangeError, match=r"neither \.json nor \.eval"):
        read_inspect_log(tmp_path / "log.csv")


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
def test_a_bomb_is_not_unpacked(tmp_path, method, monkeypatch):
    monkeypatch.setattr(inspect_files, "MAX_MEMBER_BYTES", 1 << 20)
    path = tmp_path / "bomb.eval"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("header.json", b" " * (64 << 20))
    with pytest.raises(ExchangeError, match=r"header\.json is too large"):
        read_inspect_log(path)


@pytest.mark.parametrize("told", [64 << 20, 10])
def test_a_zstandard_bomb_is_not_unpacked_whatever_size_it_tells(tmp_path, told, monkeypatch):
    monkeypatch.setattr(inspect_files, "MAX_MEMBER_BYTES", 1 << 20)
    path = tmp_path / "bomb.eval"
    write_zstandard(path, {"header.json": b" " * (64 << 20)}, told=told)
    with pytest.raises(ExchangeError, match=r"too large|cannot be unpacked"):
        read_inspect_log(path)


def write_zstandard(path, members, told=None, num_frames=1, broken=False):
    """A zip with Zstandard members, which zipfile cannot write itself: stored, and relabelled afterwards."""
    infos = {}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            step = -(-len(content) // num_frames)
            frames = [pa.compress(content[i : i + step], "zstd", asbytes=True) for i in range(0, len(content), step)]
            packed = b"".join(frames)
            archive.writestr(name, packed[:-3] if broken else packed)
            infos[name] = (content, len(content) if told is None else told)
        for info in archive.filelist:
            info.compress_type = inspect_files.ZSTANDARD
            info.file_size, info.CRC = infos[info.filename][1], zlib.crc32(infos[info.filename][0])
    path.write_bytes(buffer.getvalue())


def test_several_frames_and_broken_ones(tmp_path):
    members = {"header.json": json.dumps({key: SUMS[key] for key in SUMS if key != "samples"}).encode()}
    members |= {f"samples/{i}.json": json.dumps(one).encode() for i, one in enumerate(SUMS["samples"])}
    write_zstandard(tmp_path / "frames.eval", members, num_frames=3)
    assert len(read_inspect_log(tmp_path / "frames.eval").traces) == 4
    write_zstandard(tmp_path / "broken.eval", members, broken=True)
    with pytest.raises(ExchangeError, match=r"header\.json cannot be unpacked"):
        read_inspect_log(tmp_path / "broken.eval")


def test_limits_of_a_whole_log(tmp_path, monkeypatch):
    monkeypatch.setattr(inspect_files, "MAX_SAMPLES", 3)
    for name in ("sums.json", "sums.eval"):
        with pytest.raises(ExchangeError, match="4 samples, more than the limit of 3"):
            read_inspect_log(GOLDEN / name)
    monkeypatch.setattr(inspect_files, "MAX_SAMPLES", 9)
    monkeypatch.setattr(inspect_files, "MAX_EVAL_BYTES", 4_000)
    monkeypatch.setattr(inspect_files, "MAX_JSON_BYTES", 4_000)
    with pytest.raises(ExchangeError, match="is too large"):
        read_inspect_log(GOLDEN / "sums.eval")
    with pytest.raises(ExchangeError, match="inspect log convert"):
        read_inspect_log(GOLDEN / "sums.json")


def test_a_thought_that_inspect_did_not_split_off(tmp_path):
    def change(log):
        for sample, text in zip(log["samples"], ("I add.\n</think>\n\n3", "<think>\nI ad", "3", "4"), strict=True):
            sample["output"]["choices"][0]["message"]["content"] = text

    traces = read_inspect_log(write_log(tmp_path, change)).traces
    found = {(one.text, one.reasoning, one.content) for one in traces}
    assert ("I add.\n</think>\n\n3", "I add.", "3") in found
    assert ("<think>\nI ad", "I ad", "") in found
    assert ("3", "", "3") in found


def test_an_answer_of_ten_megabytes(tmp_path):
    text = "[ \\boxed{ <th" * 800_000

    def change(log):
        log["samples"][0]["output"]["choices"][0]["message"]["content"] = text

    assert max(len(one.content) for one in read_inspect_log(write_log(tmp_path, change)).traces) == len(text)


def places(value, path=()):
    """All places in a JSON value."""
    yield path
    for key, one in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(one, (*path, key))


SMALL = {key: value for key, value in SUMS.items() if key != "reductions"}
SMALL["samples"] = [{k: v for k, v in one.items() if k not in ("events", "events_data")} for one in SUMS["samples"][:2]]
PLACES = [path for path in places(SMALL) if path]
JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 70), 1 << 70)
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["C", 10**400, "attachment://" + "a" * 32, "\ud800", "9" * 5000, "assistant"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(PLACES), JUNK), min_size=1, max_size=3))
def test_any_value_anywhere_gives_records_or_an_error_that_says_so(tmp_path, changes):
    log = copy.deepcopy(SMALL)
    for path, junk in changes:
        parent = log
        for key in path[:-1]:
            parent = parent[key] if isinstance(parent, list | dict) and _has(parent, key) else {}
        if isinstance(parent, dict) or (isinstance(parent, list) and _has(parent, path[-1])):
            parent[path[-1]] = junk
    file = tmp_path / "log.json"
    file.write_text(json.dumps(log))
    try:
        found = read_inspect_log(file)
    except ExchangeError as error:
        words = str(error)
    else:
        words = str(file)
        check_records(found)
    assert str(file) in words


def check_records(found):
    """Whatever was taken in can be stored, and is consistent."""
    assert isinstance(found, ImportedLog)
    json.dumps([one.to_json() for one in (*found.problems, *found.traces, *found.verdicts)]).encode()
    assert found.num_missing >= 0
    assert {one.problem_id for one in found.traces} == {one.id for one in found.problems}


def _has(parent, key):
    return key in parent if isinstance(parent, dict) else isinstance(key, int) and key < len(parent)
