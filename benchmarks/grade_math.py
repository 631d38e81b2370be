"""Verdicts per second and core on long traces, over math-verify on the full text as open-r1's accuracy reward calls it.

Takes graded answers to mathematics questions (JSONL: `gt`, `code`, a list of answers, and `score`, their labels) and
puts real reasoning in front of each, inside <think> … </think>, until the trace has so many characters. Both graders
see the whole trace and run in this process, taking turns; time is CPU time, so other jobs on the machine count little.

    python benchmarks/grade_math.py [--rounds 3] [--characters 20000] [--data ../shared/data] [--limit 800]
    python benchmarks/grade_math.py --symbolic 560

Prints every verdict that differs, with both answers. The last line is JSON: the ratio of the rates, every round, how
many verdicts differ, and how often each grader agrees with the labels.

With `--symbolic`, short answers that are made up (`symbolic_answers.py`), half of them equal to the expected one in
another form, half of them not: CPU time an answer, both graders on each answer in turn. `ratio` is then math-verify's
mean over distill's.
"""

import argparse
import json
import logging
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from symbolic_answers import make_pairs

from distill.core.records import Problem
from distill.core.thinking import join_reasoning, split_reasoning
from distill.grading import grade

ANSWERS = "graded_math_cot_100.jsonl"
REASONING = ("sample_ollama_outputs.json", "sample_openrouter_outputs.json")


class Row(NamedTuple):
    """One trace with its expected answer and its label."""

    gold: str
    text: str
    label: bool


class Said(NamedTuple):
    """What a grader said of a row."""

    correct: bool
    answer: str


def main() -> None:
    """Take turns, print each round, the verdicts that differ, then the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each (the median counts)")
    parser.add_argument("--characters", type=int, default=20_000, help="least length of a trace")
    parser.add_argument("--limit", type=int, default=800, help="at most so many traces")
    parser.add_argument(
        "--data", type=Path, default=Path("../shared/data"), help=f"folder of {ANSWERS} and the reasoning"
    )
    parser.add_argument("--symbolic", type=int, default=0, help="so many made-up symbolic answers instead of traces")
    options = parser.parse_args()
    for name in ("math_verify", "latex2sympy2_extended"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if options.symbolic:
        print(json.dumps(time_symbolic(options.symbolic, options.rounds)))
        return
    rows = load_rows(options.data, options.characters)[: options.limit]
    print(f"{len(rows)} traces, {statistics.median(len(row.text) for row in rows):,.0f} characters (median)")
    graders: dict[str, Callable[[Row], Said]] = {"distill": by_distill, "math_verify": by_math_verify}
    for grader in graders.values():
        grader(Row("2", r"\boxed{\sqrt{4}}", True))  # imports are not measured
    rates: dict[str, list[float]] = {name: [] for name in graders}
    said: dict[str, list[Said]] = {}
    for turn in range(options.rounds):
        for name in list(graders) if turn % 2 == 0 else reversed(list(graders)):
            forget()
            started = time.process_time()
            said[name] = [graders[name](row) for row in rows]
            rates[name].append(len(rows) / (time.process_time() - started))
            print(f"{name:>12}: {rates[name][-1]:,.0f} traces per CPU second", flush=True)
    num_differ = report_differences(rows, said["distill"], said["math_verify"])
    medians = {name: statistics.median(found) for name, found in rates.items()}
    agree = {
        name: sum(one.correct == row.label for one, row in zip(said[name], rows, strict=True)) / len(rows)
        for name in graders
    }
    summary = {"traces": len(rows), "differ": num_differ, "agree_with_labels": agree, "rounds": rates}
    print(json.dumps({"ratio": medians["distill"] / medians["math_verify"], "per_cpu_second": medians, **summary}))


def time_symbolic(count: int, rounds: int) -> dict[str, Any]:
    """Milliseconds of CPU an answer, and the share of right verdicts, of both graders."""
    graders: dict[str, Callable[[Row], Said]] = {"distill": by_distill, "math_verify": by_math_verify}
    times: dict[str, list[float]] = {name: [] for name in graders}
    right = dict.fromkeys(graders, 0)
    for seed in range(rounds):
        for number, pair in enumerate(make_pairs(count, seed)):
            row = Row(pair.gold, rf"\boxed{{{pair.answer}}}", pair.equal)
            for name in list(graders) if number % 2 else reversed(list(graders)):
                forget()
                started = time.process_time()
                said = graders[name](row)
                times[name].append(1000 * (time.process_time() - started))
                right[name] += said.correct == pair.equal
                if name == "distill" and said.correct != pair.equal:
                    print(f"wrong verdict: {pair}")
    found = {
        name: {
            "mean_ms": statistics.mean(spent),
            "median_ms": statistics.median(spent),
            "p99_ms": statistics.quantiles(spent, n=100)[-1],
            "right": right[name] / len(spent),
        }
        for name, spent in times.items()
    }
    return {"ratio": found["math_verify"]["mean_ms"] / found["distill"]["mean_ms"], **found}


def load_rows(folder: Path, characters: int) -> list[Row]:
    """Each graded answer behind enough real reasoning."""
    missing = [name for name in (ANSWERS, *REASONING) if not (folder / name).is_file()]
    if missing:
        sys.exit(f"{folder}: no {', '.join(missing)}. Name the folder that holds them with --data.")
    thoughts = [row["message_thinking"] for name in REASONING for row in json.loads((folder / name).read_text())]
    rows = []
    for number, line in enumerate((folder / ANSWERS).read_text().splitlines()):
        row: dict[str, Any] = json.loads(line)
        for index, (answer, label) in enumerate(zip(row["code"], row["score"], strict=True)):
            thought = stretched(thoughts, number + index, characters - len(answer))
            rows.append(Row(row["gt"], join_reasoning(thought, answer), bool(label)))
    return rows


def stretched(thoughts: Sequence[str], first: int, characters: int) -> str:
    """Pieces of reasoning one after the other, each trace beginning with another one."""
    parts: list[str] = []
    while sum(map(len, parts)) < characters:
        parts.append(thoughts[(first + len(parts)) % len(thoughts)])
    return "\n\n".join(parts)


def forget() -> None:
    """Empty the caches: a run over many problems meets each once, and a second round would find the first one's."""
    from math_verify.parser import parse_expr_cached, parse_latex_cached
    from sympy.core.cache import clear_cache  # type: ignore[import-untyped]

    clear_cache()
    parse_latex_cached.cache_clear()
    parse_expr_cached.cache_clear()


def by_distill(row: Row) -> Said:
    """What `distill filter` does with a trace: cut the thinking off, take the final answer out, compare."""
    said = grade(Problem("row", [], row.gold, "math", "benchmark"), split_reasoning(row.text).content)
    return Said(said.correct is True, said.extracted_answer or "")


def by_math_verify(row: Row) -> Said:
    """The settings of open-r1's accuracy reward (huggingface/open-r1, src/open_r1/rewards.py), no time limits.

    Its limits are alarms, which cost next to nothing; without them a hang would show.
    """
    from latex2sympy2_extended import NormalizationConfig  # type: ignore[import-untyped]
    from math_verify import LatexExtractionConfig, parse, verify

    gold = parse(  # in dollars, as open-r1's solutions are: without, a bare number is no LaTeX to it
        f"${row.gold}$",
        extraction_mode="first_match",
        extraction_config=[LatexExtractionConfig()],
        parsing_timeout=None,
    )
    strict_latex = NormalizationConfig(
        nits=False, malformed_operators=False, basic_latex=True, equations=True, boxed="all", units=True
    )
    target = LatexExtractionConfig(
        normalization_config=strict_latex, boxed_match_priority=0, try_extract_without_anchor=False
    )
    answer = parse(row.text, extraction_config=[target], extraction_mode="first_match", parsing_timeout=None)
    correct = bool(verify(answer, gold, timeout_seconds=None))
    return Said(correct, str(answer[-1]) if answer else "")


def report_differences(rows: Sequence[Row], ours: Sequence[Said], theirs: Sequence[Said]) -> int:
    """Print each verdict that differs, and count them."""
    num_differ = 0
    for row, one, other in zip(rows, ours, theirs, strict=True):
        if one.correct != other.correct:
            num_differ += 1
            print(
                f"differs: expected {row.gold!r}, labelled {row.label}: distill {one.correct} ({one.answer!r}), "
                f"math-verify {other.correct} ({other.answer[:200]!r})"
            )
    return num_differ


if __name__ == "__main__":
    main()
