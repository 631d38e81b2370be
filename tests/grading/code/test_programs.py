"""The program of an answer: which block it is, and what it is run with."""

import pytest

from distill.core.records import CodeTests
from distill.grading.code.names import called_names
from distill.grading.code.programs import (
    fenced_blocks,
    program_in,
    prompt_module,
    python_source,
    whole_blocks,
    with_methods,
)
from distill.grading.sandbox.submission import IMPORTS

PYTHON = CodeTests("0", 1)
CPP = CodeTests("0", 1, language="cpp")
HEAD = 'import math\n\n\ndef helper(x):\n    return x + 1\n\n\ndef add(a, b):\n    """Add."""\n'
ADD = CodeTests("0", 1, entry_point="add", prompt=HEAD)


@pytest.mark.parametrize(
    ("text", "tests", "program"),
    [
        pytest.param("So:\n```python\nprint(1)\n```\nDone.", PYTHON, "print(1)\n", id="a block"),
        pytest.param("```python\nprint(1)\n```\nor\n```py\nprint(2)\n```", PYTHON, "print(2)\n", id="the last one"),
        pytest.param("```python\nprint(1)\n```\nIt prints:\n```\n1\n```", PYTHON, "print(1)\n", id="not its output"),
        pytest.param(
            "```\nprint(1)\n```\nRun it:\n```bash\npython x.py\n```", PYTHON, "print(1)\n", id="not a command"
        ),
        pytest.param("```\nprint(1)\n```\n```\nprint(2)\n```", PYTHON, "print(2)\n", id="without a language"),
        pytest.param("```cpp\nint main() {}\n```", PYTHON, None, id="another language"),
        pytest.param("```c++\nint main() {}\n```", CPP, "int main() {}\n", id="C++"),
        pytest.param("~~~Python\nprint(1)\n~~~", PYTHON, "print(1)\n", id="tildes and a capital"),
        pytest.param("````python\ns = '''\n```\n'''\n````", PYTHON, "s = '''\n```\n'''\n", id="a longer mark"),
        pytest.param("  ```python title=x\nprint(1)\n  ```", PYTHON, "print(1)\n", id="more after the mark"),
        pytest.param("```python\r\nprint(1)\r\n```\r\n", PYTHON, "print(1)\r\n", id="line ends of Windows"),
        pytest.param("```python3.11\nprint(1)\n```", PYTHON, "print(1)\n", id="a version"),
        pytest.param("```{.python .numberLines}\nprint(1)\n```", PYTHON, "print(1)\n", id="a class of Pandoc's"),
        pytest.param("```c++17\nint main() {}\n```", CPP, "int main() {}\n", id="a version of C++"),
        pytest.param("```c#\nint x;\n```", CPP, None, id="not C"),
        pytest.param(
            "1. So:\n    ```python\n    if x:\n        print(1)\n    ```\n2. Done.",
            PYTHON,
            "if x:\n    print(1)\n",
            id="in a list",
        ),
        pytest.param(
            "- A:\n  - B:\n\n    ```py\n    print(1)\n    ```", PYTHON, "print(1)\n", id="in a list in a list"
        ),
        pytest.param(
            '1. So:\n\n```python\ndef f():\n    """\n    ```\n    f()\n    ```\n    """\n```',
            PYTHON,
            'def f():\n    """\n    ```\n    f()\n    ```\n    """\n',
            id="a block in a docstring",
        ),
        pytest.param(
            'def f():\n    """\n    ```\n    f()\n    ```\n    """',
            PYTHON,
            'def f():\n    """\n    ```\n    f()\n    ```\n    """',
            id="a block in a docstring of an answer without any",
        ),
        pytest.param("Code:\n```python\nprint(1)", PYTHON, "print(1)\n", id="never closed"),
        pytest.param("```python\n\n```", PYTHON, None, id="an empty block"),
        pytest.param("I cannot do that.", PYTHON, None, id="no program"),
        pytest.param("def add(a, b):\n    return a + b", PYTHON, "def add(a, b):\n    return a + b", id="all of it"),
        pytest.param(
            "#include <iostream>\nint main() {}", CPP, "#include <iostream>\nint main() {}", id="all of it, C++"
        ),
        pytest.param("    return a + b", ADD, "    return a + b", id="goes on where the prompt ends"),
        pytest.param("    return a + b", PYTHON, None, id="no prompt to go on from"),
        pytest.param("for i in a:\n        pass", ADD, "    for i in a:\n        pass", id="without its first spaces"),
        pytest.param(
            "```python\ndef add(a, b):\n    return a + b\n```\nUse it:\n```python\nprint(add(1, 2))\n```",
            ADD,
            "def add(a, b):\n    return a + b\n",
            id="the one that defines the function",
        ),
    ],
)
def test_the_program_of_an_answer(text, tests, program):
    assert program_in(text, tests) == program


def test_an_unfinished_program_of_an_answer_that_was_cut_off_is_none():
    whole = "First:\n```python\nprint(1)\n```\nBetter:\n"
    assert program_in(whole_blocks(f"{whole}```python\nprint(2"), PYTHON) == "print(1)\n"
    assert program_in(whole_blocks("```python\nprint(2"), PYTHON) is None
    assert program_in(whole_blocks(f"{whole}1. So:\n    ```python\n    print(2"), PYTHON) == "print(1)\n"
    assert program_in(whole_blocks("def add(a, b):"), PYTHON) is None
    assert whole_blocks(whole) == whole


def test_long_answers_are_read_in_linear_time():
    blocks = list(fenced_blocks("```python\nprint(1)\n```\n" * 20_000 + "`" * 1_000_000))
    assert len(blocks) == 20_001
    assert list(fenced_blocks("```" + " a" * 500_000 + "`")) == []
    assert list(fenced_blocks("`" * 500_000 + " " * 500_000 + "`")) == []
    assert IMPORTS.findall(b"\n" * 1_000_000 + b"\timport numpy") == [b"numpy"]
    program = "x = 1\n" * 200_000
    assert program_in(f"```python\n{program}```", PYTHON) == program


@pytest.mark.parametrize(
    ("program", "lines"),
    [
        pytest.param(
            "def add(a, b):\n    return a + b\n", ["import math", "def add(a, b):", "def add(a, b):"], id="whole"
        ),
        pytest.param("    return a + b\n", ["import math", "def add(a, b):", "    return a + b"], id="completes"),
        pytest.param("return a + b\n", ["import math", "    return a + b"], id="completes, without indentation"),
        pytest.param("add = max\n", ["import math", "def add(a, b):", "add = max"], id="assigned"),
    ],
)
def test_a_function_gets_the_imports_and_helpers_of_its_prompt(program, lines):
    source = python_source(program, ADD)
    found = {}
    exec(compile(source, "<source>", "exec"), found)
    assert found["helper"](1) == 2
    assert callable(found["add"])
    rest = iter(source.splitlines())
    assert all(line in rest for line in lines), source


def test_a_future_import_stays_at_the_beginning():
    source = python_source("from __future__ import annotations\n\n\ndef add(a: X, b):\n    return a + b\n", ADD)
    found = {}
    exec(compile(source, "<source>", "exec", dont_inherit=True), found)
    assert found["add"](1, 2) == 3


def test_a_head_alone_is_a_module_too():
    compile(prompt_module("def add(a, b):\n    # adds\n"), "<prompt>", "exec")
    assert prompt_module(HEAD) == HEAD


def test_methods_of_a_solution_can_be_called_as_functions():
    source = with_methods("class Solution:\n    def add(self, a, b):\n        return a + b\n", frozenset({"add"}))
    found = {}
    exec(source, found)
    assert found["add"](1, 2) == 3
    plain = "def add(a, b):\n    return a + b\n"
    assert with_methods(plain, frozenset({"add"})) == plain


@pytest.mark.parametrize(
    ("code", "trusted", "names"),
    [
        ("assert add(1, mul(2, 3)) == max(7, 1)", "", ("add", "mul")),
        ("assert math.isclose(f(2), 4.0)", "import math", ("f",)),
        ('assert f("g(1)") == 2  # h(3)', "", ("f",)),
        ("x = [Pair(1, 2)]\nassert f(x) == 1", "", ("Pair", "f")),
        ("def check(candidate):\n    assert candidate(1)\ncheck(f)", "", ()),
        ("assert f(helper(1)) == 1", "def helper(x):\n    return x", ("f",)),
        ("assert f(sqrt(4)) == 1 and not (g(1))", "from math import sqrt, pi as p", ("f", "g")),
    ],
)
def test_the_functions_that_test_code_calls(code, trusted, names):
    found = called_names(code, trusted)
    assert set(names) <= set(found)
    assert not {"max", "isclose", "sqrt", "helper", "check", "h", "not", "and"} & set(found)
