"""C++ assertions as text: their two sides, the values of literals, and the program around an answer."""

import struct

import pytest

from distill.grading.code.cpp_asserts import same_result
from distill.grading.code.cpp_literals import NotALiteralError, literal_value
from distill.grading.code.cpp_text import asserts_in, condition_of, defines, result_type, sides_of, whole_program

PROMPT = "#include<vector>\nstruct Pair { long a; };\n// add(1) adds\nstd::vector<long> add(std::vector<long> a) {\n"


def single(value):
    return struct.unpack("f", struct.pack("f", value))[0]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5),
        ("(-5)", -5),
        ("(long)5", 5),
        ("5L", 5),
        ("0x1F", 31),
        ("true", True),
        ("2.5", 2.5),
        ("3.9f", single(3.9)),
        ("(float)3.9", single(3.9)),
        ('("a\\"b\\n")', 'a"b\n'),
        ('"a" "b"', "ab"),
        ('(std::string)"é"', "é".encode().decode("latin-1")),
        ('std::string("x")', "x"),
        (r'"\033[0m\7x\1018"', "\x1b[0m\x07xA8"),
        ("(std::set<long>({3, 1, 3}))", [1, 3]),
        ("(std::map<long,long>({{2, 1}, {1, 5}, {2, 7}}))", [[1, 5], [2, 1]]),
        ("std::nullopt", None),
        ("(std::optional<long>(3))", 3),
        ("(std::optional<long>(std::nullopt))", None),
        ("(std::vector<long>())", []),
        ("(std::vector<long>({(long)1, (long)-2}))", [1, -2]),
        ("(std::vector<float>({(float)1.5f}))", [1.5]),
        ('(std::vector<std::string>({(std::string)"a", (std::string)"b"}))', ["a", "b"]),
        (
            "(std::vector<std::vector<long>>({(std::vector<long>)std::vector<long>({(long)1})}))",
            [[1]],
        ),
        ("std::make_tuple(1, 2)", [1, 2]),
        ("(std::make_tuple(std::optional<long>(1), std::optional<long>(std::nullopt)))", [1, None]),
        ('(std::map<std::string,long>({{"b", 2}, {"a", 1}}))', [["a", 1], ["b", 2]]),
        ("(std::map<std::string,long>())", []),
        ("std::vector<std::tuple<long, long>>({(std::tuple<long, long>)std::make_tuple(0, 1)})", [[0, 1]]),
    ],
)
def test_the_value_of_a_literal(text, value):
    assert literal_value(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1 + 1",
        "f(2)",
        "017",
        "std::pow(2, 3)",
        "x",
        "(std::any)3",
        '"\\u0041"',
        r'"a\0b"',
        r'"\400"',
        "1 2",
        "{1",
        "((",
        "1e999f",
        "(" * 5_000,
    ],
)
def test_more_than_a_literal_is_left_to_the_program(text):
    with pytest.raises(NotALiteralError):
        literal_value(text)


def test_assertions_are_found_and_split():
    text = 'int main() { auto candidate = f;\n assert(candidate((")"), (2)) == (3));\n assert(f(1) != 2); }'
    first, second = asserts_in(text)
    assert first == 'assert(candidate((")"), (2)) == (3))'
    assert sides_of(first) == ('candidate((")"), (2))', "(3)")
    assert condition_of(second) == "f(1) != 2"
    assert sides_of(second) is None
    assert sides_of("assert(f(1))") is None


def test_whether_a_program_defines_a_function():
    for program in ("int add(int a) { return a; }", "int g();\nint add (F(*f)(int), int b)\n  -> int\n{", "add(){"):
        assert defines(program, "add")
    for program in ("int add(int a);\nint g() {}", "int addx(int a) {}", "x = add(1); {", "add() }{", "add( {", "add"):
        assert not defines(program, "add")
    assert not defines("add(" * 200_000 + ")" * 200_000, "add")
    assert not defines("add();" * 200_000, "add")


def test_the_type_of_a_function_is_read_from_its_prompt():
    assert result_type(PROMPT, "add") == "std::vector<long>"
    assert result_type(PROMPT, "sub") is None


def test_a_program_gets_the_includes_and_types_of_its_prompt():
    whole = whole_program("std::vector<long> add(std::vector<long> a) { return a; }", PROMPT, "add")
    assert whole.startswith("#include<vector>\nstruct Pair { long a; };")
    assert whole.count("add(std::vector<long> a)") == 1
    own = whole_program("struct Pair {};\nstd::vector<long> add(std::vector<long> a) { return a; }", PROMPT, "add")
    assert own.count("struct Pair") == 1
    assert own.startswith("#include<vector>\n")
    completed = whole_program("  return a;\n", PROMPT, "add")
    assert completed.count("{") == completed.count("}")


@pytest.mark.parametrize(
    ("value", "expected", "same"),
    [
        (3, 3.0, True),
        (True, 1, True),
        (single(3.9), 3.9, False),
        ([1, [2]], [1, [2]], True),
        ([1], [1, 2], False),
        (None, None, True),
        ("a", 1, False),
        (float("nan"), float("nan"), False),
    ],
)
def test_results_are_compared_as_cpp_does(value, expected, same):
    assert same_result(value, expected) is same
