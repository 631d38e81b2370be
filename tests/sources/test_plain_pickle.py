"""Pickles of strangers: plain data comes out as it went in, and nothing else happens."""

import base64
import collections
import datetime
import decimal
import io
import json
import math
import os
import pickle
import pickletools
import sys
import time
import tracemalloc
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.sources.plain_pickle import NotPlainDataError, load_plain, open_packed

SAMPLES = Path(__file__).parents[2].parent / "shared" / "data" / "livecodebench_sample.jsonl"
KEYS = st.text(max_size=8)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=300)
PLAIN = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(KEYS, inner, max_size=4) | st.tuples(inner, inner),
    max_leaves=25,
)


def packed(value, level=6):
    return base64.b64encode(zlib.compress(pickle.dumps(value), level)).decode()


def refusal(pickled, **options):
    with pytest.raises(NotPlainDataError) as caught:
        load_plain(pickled, **options)
    return str(caught.value)


# --- plain data


@given(PLAIN, st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_plain_data_comes_out_as_it_went_in(value, protocol):
    found = load_plain(pickle.dumps(value, protocol))
    assert found == value
    assert repr(found) == repr(value)  # 1, 1.0 and True are equal


def test_a_text_in_several_places_is_recalled_from_memory():
    text = "the same text"
    value = [text, {text: text}, (text,)]
    assert any(opcode.name in ("BINGET", "LONG_BINGET") for opcode, _, _ in pickletools.genops(pickle.dumps(value)))
    assert load_plain(pickle.dumps(value)) == value


def test_tests_as_livecodebench_packs_them():
    tests = [
        {"input": "1 2\n", "output": "3\n", "testtype": "stdin"},
        {"input": "é", "output": "", "testtype": "stdin"},
    ]
    assert open_packed(packed(json.dumps(tests))) == tests
    assert open_packed(packed(json.dumps(tests)) + "\n") == tests


@pytest.mark.skipif(not SAMPLES.is_file(), reason="the shared samples are not here")
def test_real_samples_open():
    for line in SAMPLES.read_text().splitlines():
        found = open_packed(json.loads(line)["test"])
        assert {"inputs", "outputs", "fn_name"} <= json.loads(found["input_output"]).keys()


# --- programs


class Runs:
    """Reduces to a call."""

    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


class Slots:
    __slots__ = ("one",)


class Saved(list):
    def __reduce_ex__(self, protocol):
        return (list, (), {"state": 1}, iter([1]))


class WithId(pickle.Pickler):
    def persistent_id(self, obj):
        return "x" if obj == "x" else None


def persistent(protocol):
    stream = io.BytesIO()
    WithId(stream, protocol).dump(["x"])
    return stream.getvalue()


TOUCHED = "import pathlib; pathlib.Path({!r}).touch()"


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_no_call_is_made(tmp_path, protocol):
    mark = tmp_path / "touched"
    calls = [
        (os.system, (f"touch {mark}",)),
        (exec, (TOUCHED.format(str(mark)),)),
        (eval, (f"__import__('os').mknod({str(mark)!r})",)),
        (getattr, (os, "system")) if protocol > 3 else (os.mkdir, (str(mark),)),
        (map, (os.mkdir, [str(mark)])),
        (open, (str(mark), "w")),
    ]
    for function, arguments in calls:
        pickles = [
            Runs(function, arguments),
            [1, {"a": Runs(function, arguments)}],
            {"k": (Runs(function, arguments),)},
        ]
        for value in pickles:
            try:
                pickled = pickle.dumps(value, protocol)
            except TypeError:  # a module cannot be pickled
                continue
            assert "more than plain data" in refusal(pickled)
    assert not mark.exists()


@pytest.mark.parametrize(
    "value",
    [
        collections.OrderedDict(a=1),
        datetime.date(2024, 8, 1),
        decimal.Decimal(1),
        {1, 2},
        frozenset([1]),
        b"bytes",
        bytearray(b"bytes"),
        complex(1, 2),
        range(3),
        Slots(),
        Saved(),
        len,
        int,
        Ellipsis,
        slice(1),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_everything_else_than_plain_data_is_refused(value, protocol):
    try:
        pickled = pickle.dumps([value], protocol)
    except TypeError:
        pytest.skip("this protocol has no such value")
    assert "more than plain data" in refusal(pickled)


@pytest.mark.parametrize("protocol", [0, 1, 2, 4, 5])
def test_a_persistent_id_is_refused(protocol):
    assert "PERSID" in refusal(persistent(protocol))


@pytest.mark.parametrize(
    ("pickled", "instruction"),
    [
        (b"cos\nsystem\n(S'touch x'\ntR.", "GLOBAL"),
        (b"(S'touch x'\nios\nsystem\n.", "STRING"),
        (b"(ios\nsystem\n.", "INST"),
        (b"(\x8c\x02os\x8c\x06system\x93.", "STACK_GLOBAL"),
        (b"\x82\x01.", "EXT1"),
        (b"\x84\x01\x00\x00\x00.", "EXT4"),
        (b"(]o.", "OBJ"),
        (b"])\x81.", "NEWOBJ"),
        (b"])}\x92.", "NEWOBJ_EX"),
        (b"]}b.", "BUILD"),
        (b"](\x90.", "ADDITEMS"),
        (b"\x97.", "NEXT_BUFFER"),
        (b"]\x98.", "READONLY_BUFFER"),
        (b"]2.", "DUP"),
    ],
)
def test_each_instruction_that_does_more_is_refused_by_name(pickled, instruction):
    assert f"the instruction {instruction}," in refusal(b"\x80\x04" + pickled)


# --- more than it should be


def test_a_list_in_itself_or_in_two_places_is_refused():
    itself = []
    itself.append(itself)
    shared = ["lol"]
    for value in (itself, [shared, shared], {"a": shared, "b": [shared]}, [(1, 2), itself]):
        assert "in several places" in refusal(pickle.dumps(value))


def test_lists_that_double_each_other_are_refused_before_they_grow():
    value = "lol" * 10
    for _ in range(30):
        value = [value, value]  # 2 ** 30 texts, a few hundred bytes of pickle
    pickled = pickle.dumps(value)
    assert len(pickled) < 1_000
    assert "in several places" in refusal(pickled)


def test_a_long_text_that_is_recalled_many_times_counts_each_time():
    text = "x" * 100_000
    assert "MiB of text" in refusal(pickle.dumps([text] * 100), max_bytes=1 << 20)
    assert len(load_plain(pickle.dumps([text] * 10), max_bytes=1 << 20)) == 10


def test_deep_nests_are_refused_whether_built_from_inside_or_outside():
    value = []
    for _ in range(200):
        value = [value]
    assert "nested" in refusal(pickle.dumps(value))
    assert "nested" in refusal(b"(" * 500 + b"t" * 500 + b".")
    assert "nested" in refusal(b")" + b"\x85" * 100_000 + b".")


@pytest.mark.parametrize("pickled", [b"(" * 900, b"N0" * 500 + b"N.", b"N" + b"q\0" * 600 + b"."])
def test_instructions_that_make_nothing_are_counted(monkeypatch, pickled):
    monkeypatch.setattr("distill.sources.plain_pickle.MAX_INSTRUCTIONS", 500)
    assert "more than 500 instructions" in refusal(pickled)


def test_numbers_are_no_keys_since_they_could_all_have_one_hash():
    same = {number * ((1 << 61) - 1): None for number in range(100)}
    assert len({hash(key) for key in same}) == 1
    assert "not text" in refusal(pickle.dumps(same))


def test_huge_numbers_are_refused():
    assert "digits" in refusal(pickle.dumps(1 << 20_000))
    assert "digits" in refusal(pickle.dumps([10**5_000], 2))
    assert refusal(b"L" + b"9" * 5_000 + b"L\n.")
    assert load_plain(pickle.dumps([10**300, -(10**300)])) == [10**300, -(10**300)]


@pytest.mark.parametrize(
    "pickled",
    [
        b"\x8d" + (1 << 62).to_bytes(8, "little") + b"x.",
        b"X\xff\xff\xff\x7fx.",
        b"\x8b\xff\xff\xff\x7fx.",
        b"\x8b\xff\xff\xff\xffx.",
        b"\x95" + (1 << 63).to_bytes(8, "little") + b"N.",
        b"\x80\x04\x8cZshort.",
        b"r\xff\xff\xff\xff.",
        b"Nr\xff\xff\xff\xffj\x00\x00\x00\x00.",
        b"h\x05.",
        b"g99\n.",
        b"gx\n.",
    ],
)
def test_lengths_and_places_that_do_not_exist_take_no_memory(pickled):
    tracemalloc.start()
    try:
        refusal_or_value = refusal(pickled) if not pickled.startswith(b"\x95") else None
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert refusal_or_value is None or "damaged" in refusal_or_value
    assert peak < 1 << 20


def test_a_high_place_in_memory_takes_no_more_than_a_low_one():
    assert load_plain(b"X\x01\x00\x00\x00xr\xff\xff\xff\x7f\x85.") == ("x",)


DAMAGED = (
    *(b"", b".", b"(", b"(.", b"N", b"NN.", b"N.N.", b"a.", b"]a.", b"}s.", b"}NNNu.", b"(N}s.", b"]NNs.", b"t."),
    *(b"\x85.", b"N\x86.", b"(\x85.", b"0.", b"1.", b"Ne.", b"(Ne.", b"N(Nu.", b"F.", b"Fx\n.", b"(NNNd.", b"(]Nd."),
    *(b"Ix\n.", b"q\x00.", b"(q\x00h\x00."),
)


@pytest.mark.parametrize("pickled", DAMAGED)
def test_damaged_pickles_are_refused(pickled):
    assert refusal(pickled)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60))
def test_no_bytes_do_more_than_raise_the_one_error(pickled):
    try:
        load_plain(pickled)
    except NotPlainDataError:
        return


@settings(max_examples=200, deadline=None)
@given(PLAIN, st.data())
def test_a_changed_byte_gives_plain_data_or_the_one_error(value, data):
    pickled = bytearray(pickle.dumps(value))
    pickled[data.draw(st.integers(0, len(pickled) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = load_plain(bytes(pickled))
    except NotPlainDataError:
        return
    json.dumps(found, skipkeys=True)


# --- compression


def test_what_expands_without_end_is_stopped_at_the_limit():
    bomb = base64.b64encode(zlib.compress(bytes(200 << 20), 9)).decode()
    assert len(bomb) < 1 << 20
    tracemalloc.start()
    started = time.process_time()
    with pytest.raises(NotPlainDataError, match="larger than 4 MiB"):
        open_packed(bomb, max_bytes=4 << 20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 24 << 20
    assert time.process_time() - started < 2


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "zlib|cut off"),
        ("not base64!", "base64"),
        ("é", "base64"),
        (base64.b64encode(b"hello").decode(), "zlib"),
        (base64.b64encode(zlib.compress(b"hello")).decode(), "damaged|instruction"),
        (packed("[1]")[:-12], "base64|cut off|zlib"),
        (base64.b64encode(zlib.compress(pickle.dumps("[]")) + b"more").decode(), "after its end"),
        (base64.b64encode(zlib.compress(zlib.compress(b"x"))).decode(), "damaged|instruction"),
        (packed("not JSON"), "JSON"),
        (packed("[" * 100_000), "nested|JSON"),
        (packed("1" * 10_000), "JSON"),
        (packed("[" + "[]," * 2_000_001), "brackets"),
        (packed(Runs(os.system, ("true",))), "more than plain data"),
    ],
)
def test_what_is_packed_otherwise_is_refused(text, why):
    with pytest.raises(NotPlainDataError, match=why):
        open_packed(text)


def test_nothing_is_imported_on_the_way():
    before = set(sys.modules)
    with pytest.raises(NotPlainDataError):
        load_plain(b"cantigravity\nfly\n.")
    assert "antigravity" not in set(sys.modules) - before
    assert math.isinf(load_plain(pickle.dumps(math.inf)))
