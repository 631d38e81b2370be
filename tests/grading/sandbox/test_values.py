"""Typed JSON brings values back as they were, and takes nothing that it was not given."""

import contextlib
import json
import math
import time
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from decimal import Decimal
from enum import IntEnum
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.grading.sandbox.inside import values
from distill.grading.sandbox.inside.values import UnsendableError, ValueTooLargeError, decode, encode

KEYS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.complex_numbers(allow_nan=False)
    | st.fractions()
    | st.decimals(allow_nan=False, min_value=-(10**50), max_value=10**50, places=9),
    lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3),
    max_leaves=5,
)
PLAIN = st.recursive(
    KEYS | st.binary().map(bytearray) | st.builds(range, st.integers(-9, 9), st.integers(-9, 9), st.integers(1, 9)),
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.sets(KEYS) | st.dictionaries(KEYS, inner),
    max_leaves=20,
)


def same(one, other):
    """Equal, and of the same types all the way down."""
    if type(one) is not type(other) or one != other:
        return False
    if isinstance(one, list | tuple):
        return all(map(same, one, other))
    if isinstance(one, dict):
        return all(same(a, b) for a, b in zip(one.items(), other.items(), strict=True))
    if isinstance(one, float):
        return math.copysign(1, one) == math.copysign(1, other)
    return True


@given(PLAIN)
def test_plain_values_come_back_as_they_were(value):
    assert same(decode(encode(value)), value)
    assert same(decode(encode(value, liberal=True)), value)


@given(st.floats())
def test_every_float_comes_back(value):
    back = decode(encode([value]))[0]
    assert back == value or (math.isnan(back) and math.isnan(value))


@given(st.binary() | st.text().map(str.encode) | st.recursive(st.none() | st.text() | st.floats() | st.integers(), lambda i: st.lists(i) | st.dictionaries(st.sampled_from(["tuple", "set", "dict", "int", "float", "bytes", "range", "complex", "Fraction", "Decimal", "ndarray", "iterator", "deque", "x"]), i)).map(json.dumps).map(str.encode))  # fmt: skip
def test_other_bytes_are_refused_or_decoded_but_nothing_else_happens(content):
    with contextlib.suppress(ValueError):
        decode(content)


class Lie(int):
    def __eq__(self, other):
        return True

    __hash__ = int.__hash__


class Colour(IntEnum):
    RED = 3


Point = namedtuple("Point", "x y")


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Lie(3), 3),
        (Colour.RED, 3),
        (Point(1, 2), (1, 2)),
        (Counter("aab"), {"a": 2, "b": 1}),
        (OrderedDict(a=1), {"a": 1}),
        (defaultdict(list, {1: [2]}), {1: [2]}),
        (deque([1, 2], maxlen=3), deque([1, 2])),
        ({1: 2}.keys(), {1}),
        ({1: 2}.values(), [2]),
        ({1: 2}.items(), [(1, 2)]),
        (type("S", (str,), {"__str__": lambda self: "lie"})("truth"), "truth"),
        (type("L", (list,), {"__iter__": lambda self: iter("lie")})([1]), [1]),
        (type("D", (dict,), {"items": lambda self: "lie"})(a=1), {"a": 1}),
        (Decimal("1.50"), Decimal("1.50")),
        (Fraction(1, 3), Fraction(1, 3)),
    ],
)
def test_subclasses_arrive_as_what_they_are_based_on(value, plain):
    assert same(decode(encode(value, liberal=True)), plain)
    if type(value) is not type(plain):
        with pytest.raises(UnsendableError):
            encode(value)


def test_iterators_arrive_as_iterators_over_their_items():
    for made in ((n * n for n in range(3)), iter([0, 1, 4]), map(abs, [0, 1, -4])):
        back = decode(encode([made], liberal=True))[0]
        assert iter(back) is back
        assert list(back) == [0, 1, 4]
    with pytest.raises(ValueTooLargeError):
        encode((1 for _ in iter(int, 1)), liberal=True)


def test_numpy_values_arrive():
    numpy = pytest.importorskip("numpy")
    assert same(decode(encode([numpy.int64(3), numpy.float32(0.5), numpy.bool_(True)], liberal=True)), [3, 0.5, True])
    assert decode(encode(numpy.arange(6).reshape(2, 3), liberal=True)) == [[0, 1, 2], [3, 4, 5]]
    with pytest.raises(UnsendableError):
        encode(numpy.array([object()]), liberal=True)
    with pytest.raises(UnsendableError):
        encode(numpy.arange(3))


@pytest.mark.parametrize(
    "value",
    [object(), lambda: 1, int, print, Exception(), json, NotImplemented, ...],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_plain_value_is_not_sent(value):
    for liberal in (False, True):
        with pytest.raises(UnsendableError):
            encode([value], liberal=liberal)


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


def test_limits_of_depth_size_and_digits_hold_on_both_sides():
    assert decode(encode(nested(150))) == nested(150)
    endless = []
    endless.append(endless)
    for value in (nested(10_000), endless, 1 << 500_000, "x" * (values.MAX_BYTES + 1)):
        with pytest.raises(ValueTooLargeError):
            encode(value)
    for content in (
        b"[" * 100_000 + b"]" * 100_000,
        b'{"tuple":[' * 1_000 + b"]}" * 1_000,
        b"9" * 100_000,
        b'{"int":"0x' + b"f" * 200_000 + b'"}',
        b'{"Decimal":"' + b"9" * 5_000 + b'"}',
        b" " * (values.MAX_BYTES + 1),
        b"[" + b"[]," * 4_000_000 + b"[]]",
        b'{"Decimal":"sNaN"}',
        b'{"Decimal":"1E+999999"}',
        b'{"range":[0,10000000000,1]}',
    ):
        with pytest.raises(ValueError, match=r"."):
            decode(content)
    for parts in ((1 << 4_000, 1), (1, 1 << 4_000)):
        with pytest.raises(ValueTooLargeError):
            decode(encode(Fraction(*parts)))
    small = Fraction((1 << 4_000) - 1, (1 << 3_999) + 1)
    assert decode(encode([small])) == [small]
    large = 10**4_000
    assert decode(encode([large, -large])) == [large, -large]


def test_keys_that_collide_are_refused_before_they_are_compared():
    modulus = (1 << 61) - 1
    started = time.process_time()
    for kind in ("set", "frozenset"):
        with pytest.raises(ValueTooLargeError):
            decode(json.dumps({kind: [{"int": hex(n * modulus)} for n in range(100_000)]}).encode())
    with pytest.raises(ValueTooLargeError):
        decode(json.dumps({"dict": [[{"tuple": [{"int": hex(n * modulus)}]}, 1] for n in range(50_000)]}).encode())
    assert time.process_time() - started < 60  # compared with one another they would take hours


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{}", b"[1", b"NaN", b"[Infinity]", b'{"a":1}', b'{"tuple":[],"list":[]}', b'{"tuple":{}}', b'{"float":"1e5"}',
        b'{"set":[[1]]}', b'{"dict":[[[],1]]}', b'{"dict":[1]}', b'{"complex":[1,2]}', b'{"bytes":"!"}', b'{"int":true}',
        b'{"range":[1,2,0]}', b'{"Fraction":[1,0]}', b"\xff", b'"\xc3\xa9"', b'{"ndarray":[[1],[1]]}',
        b'{"__reduce__":["os.system"]}', b"\x80\x04.", b"null null",
    ],
)  # fmt: skip
def test_what_is_no_typed_json_is_refused(content):
    with pytest.raises(ValueError, match=r"."):
        decode(content)
