"""Suites of code measured from end to end: real tests in real sandboxes, scores by group, a rating, the report."""

import base64
import json
import pickle
import re
import zlib

import pytest

from distill.cli.scores import models_table
from distill.grading.sandbox import sandbox_fails
from distill.recipe.loading import recipe_of_dict
from distill.results.measure import MeasureMetrics
from distill.runs.runner import run_recipe

pytestmark = pytest.mark.skipif(sandbox_fails() is not None, reason="no sandbox can be had here")
DAYS = ["2024-08-03", "2024-08-20", "2025-01-11"]


def packed(value):
    return base64.b64encode(zlib.compress(pickle.dumps(json.dumps(value)))).decode()


def bench_row(number, day):
    """LiveCodeBench's columns: a program that adds a number, or for an even one a function that does."""
    is_call = number % 2 == 0
    tests = [
        {"input": f"{value}", "output": f"{value + number}", "testtype": "functional" if is_call else "stdin"}
        for value in (1, 5)
    ]
    return {
        "question_content": f"Add {number}.",
        "question_id": f"q{number}",
        "contest_date": f"{day}T00:00:00",
        "starter_code": "class Solution:\n    def add(self, value: int) -> int:\n        " if is_call else "",
        "difficulty": ["easy", "hard"][number % 2],
        "public_test_cases": json.dumps(tests[:1]),
        "private_test_cases": packed(tests[1:]),
        "metadata": json.dumps({"func_name": "add"} if is_call else {}),
    }


def contest_row(contest, index, rating):
    return {
        "id": f"{contest}/{index}",
        "contest_id": contest,
        "index": index,
        "contest_start": 1732545300,
        "rating": rating,
        "time_limit": 2.0,
        "memory_limit": 256.0,
        "title": "Double",
        "description": f"Double, {contest}{index}.",
        "input_format": "A number.",
        "output_format": "Its double.",
        "examples": [{"input": "2", "output": "4"}],
        "official_tests": [{"input": "3\r\n", "output": "6\r\n"}, {"input": "-1\r\n", "output": "-2\r\n"}],
        "generated_checker": None,
    }


def answer(request):
    """Right for all but the function of LiveCodeBench and the second problem of each contest."""
    asked = request.messages[-1]["content"]
    if (number := re.search(r"Add (\d+)", asked)) and "Solution" not in asked:
        return f"It adds.\n\n```python\nprint(int(input()) + {number[1]})\n```"
    if number:
        return "```python\nclass Solution:\n    def add(self, value: int) -> int:\n        return value\n```"
    factor = 3 if "B." in asked else 2
    return f"```cpp\n#include <iostream>\nint main() {{ int n; std::cin >> n; std::cout << {factor} * n; }}\n```"


def save(rows, path):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"file:{path}"


@pytest.fixture
def measured(tmp_path, model, sampled_by, answering_engine):
    """A measured run of both suites: its metrics, and its folder."""
    rows = [{"points": 30 * place, "penalty": 0, "old_rating": 800 + 20 * place} for place in range(60)]
    rounds = [{"contest": name, "problems": {"A": 500, "B": 1000}, "rows": rows} for name in ("2040", "2051")]
    problems = [contest_row(name, letter, 800 + 500 * (letter == "B")) for name in ("2040", "2051") for letter in "AB"]
    bench = save([bench_row(number, day) for number, day in enumerate(DAYS, 1)], tmp_path / "bench.jsonl")
    contests = {
        "suite": "codeforces",
        "source": save(problems, tmp_path / "problems.jsonl"),
        "contests": save(rounds, tmp_path / "rounds.jsonl"),
        "samples_per_problem": 2,
    }
    recipe = recipe_of_dict(
        {
            "name": "coded",
            "eval": {
                "models": [str(model)],
                "benchmarks": [{"suite": "livecodebench", "source": bench, "samples_per_problem": 2}, contests],
                "sampling": {"max_tokens": 64},
            },
        }
    )
    sampled_by(lambda job: answering_engine(answer, None))
    summary = run_recipe(recipe, tmp_path / "runs")
    return MeasureMetrics.from_json(summary["measure"]), tmp_path / "runs" / "coded"


def test_code_is_scored_by_its_tests_and_by_month_difficulty_and_rating(measured, distill):
    metrics, folder = measured
    bench, contests = ({**one.models}["model"] for one in metrics.benchmarks)
    assert bench.is_complete
    assert bench.pass_at_1 == pytest.approx(2 / 3)
    assert bench.groups == {"2024-08": 0.5, "2025-01": 1.0, "easy": 0.0, "hard": 1.0}
    assert bench.group_problems == {"2024-08": 2, "2025-01": 1, "easy": 1, "hard": 2}
    values = {key: figure.value for key, figure in bench.figures.items()}
    assert values == {"tests_passed": pytest.approx(2 / 3), "problems_with_weak_tests": 0}
    assert contests.pass_at_1 == 0.5
    assert contests.groups == {"800 to 1199": 1.0, "1200 to 1599": 0.0}
    assert contests.figures["rating_contests"].value == 2
    zero_delta, by_rank = (contests.figures[key].value for key in ("rating_zero_delta", "rating_by_rank"))
    assert 1_000 < zero_delta < by_rank < 1_600
    assert re.fullmatch(r"2 rated rounds, SHA-256 [0-9a-f]{16}", metrics.benchmarks[1].protocol.contests)
    assert metrics.benchmarks[0].protocol.contests is None
    said = str(models_table(metrics.benchmarks).caption)
    assert "by group: 2024-08 50.0% of 2, 2025-01 100.0% of 1, easy 0.0% of 1, hard 100.0% of 2" in said
    assert "by expected place (CodeElo, rLLM)" in said
    code, _, err = distill("report", folder)
    assert code == 0, err
    page = (folder / "report.html").read_text()
    for text in ("rating on Codeforces, by expected place", "By group (4)", "2024-08", "1200 to 1599", "rated rounds"):
        assert text.casefold() in page.casefold()
