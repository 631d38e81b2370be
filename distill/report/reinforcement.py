"""Reinforcement learning on a run's page: curves, parts of the reward, and rollouts of a problem over the steps.

Example of a problem with its rollouts:

    {"problem_id": "9f2c", "question": "What is 3 + 4?", "answers": [{"step": 0, "reward": 0.0, "parts": {…}, …}]}
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from distill.core.formatting import Row, mapping, number, printable
from distill.core.redaction import redact
from distill.report import charts
from distill.report.damage import Damage
from distill.storage.layout import PROBE, PROBLEMS
from distill.storage.problem_file import ProblemFile
from distill.storage.shards import readable
from distill.training.rl.job import ROLLOUTS

PARTS = "reward_"
"""Beginning of the keys of `metrics.jsonl` with the mean of a part of the reward."""
CURVES = {
    "reward": "Reward",
    "right": "Share of right answers",
    "tokens_mean": "Tokens of an answer",
    "truncated": "Share of answers cut off",
    "entropy": "Entropy of a token, in nats",
    "kl": "KL divergence from the reference model",
    "divergence": "Divergence from the teachers, in nats a token",
    "kl_teacher": "Divergence from the teachers by the sampled tokens, in nats a token",
    "no_variance": "Share of groups without different rewards",
}
"""Keys of `metrics.jsonl` that are drawn, in order."""
NOT_PARTS = ("reward_std",)
NUM_FILES, NUM_PROBLEMS, NUM_ANSWERS = 8, 6, 8
"""Files of rollouts that are read, spread over the steps; problems shown of each kind; answers shown of a problem."""
MAX_CHARS = 1_200
"""Longest text shown; of a longer one, the beginning and the end."""
COLUMNS = (
    "step",
    "problem_id",
    "text",
    "finish_reason",
    "num_tokens",
    "reward",
    "parts",
    "correct",
    "extracted_answer",
)


def curves(history: Sequence[Row], probe: Any) -> list[dict[str, Any]]:
    """Return the charts over the steps that have something to draw, each with its name; the probe comes first."""
    points = [mapping(point) for point in probe] if isinstance(probe, Sequence) else []
    found = [("Share of held-out problems solved", charts.step_chart(points, "pass_at_1"))]
    found += [(name, charts.step_chart(history, key)) for key, name in CURVES.items()]
    return [{"name": name, **chart} for name, chart in found if "path" in chart]


def parts(history: Sequence[Row]) -> list[dict[str, Any]]:
    """Return each part of the reward with its mean over the first and the last tenth of the steps."""
    rows = [mapping(row) for row in history]
    names = dict.fromkeys(key for row in rows for key in row if key.startswith(PARTS) and key not in NOT_PARTS)
    tenth = max(1, len(rows) // 10)
    return [
        {"name": name.removeprefix(PARTS), "first": _mean(rows[:tenth], name), "last": _mean(rows[-tenth:], name)}
        for name in names
    ]


def _mean(rows: Sequence[Row], key: str) -> float | None:
    values = [value for row in rows if (value := number(row.get(key))) is not None]
    return sum(values) / len(values) if values else None


def rollouts_shown(folder: Path, damage: Damage) -> list[dict[str, Any]]:
    """Return problems with some of their answers over the steps: held-out ones first, then those trained on.

    Args:
        folder: of the stage.
        damage: notes the files that cannot be read.
    """
    found = []
    for kind, problems in (("probe", folder / PROBE), ("step", folder / PROBLEMS)):
        answers: dict[str, list[Row]] = defaultdict(list)
        for file in _spread(sorted((folder / ROLLOUTS).glob(f"{kind}-*.parquet")), NUM_FILES):
            with damage.tolerate(file):
                for row in _rows(file):
                    answers[str(row["problem_id"])].append(row)
        # Those that were asked most often tell most of how answers change.
        often = sorted(answers, key=lambda name: (-len({row["step"] for row in answers[name]}), name))[:NUM_PROBLEMS]
        questions = {}
        if often and problems.is_file():
            with damage.tolerate(problems):
                questions = _questions(problems, often)
        for name in often:
            shown = [_answer(row) for row in _spread(answers[name], NUM_ANSWERS)]
            found.append({"problem_id": name, "held_out": kind == "probe", **questions.get(name, {}), "answers": shown})
    return found


def _spread(several: Sequence[Any], most: int) -> list[Any]:
    """Return at most so many, evenly spaced, with the first and the last."""
    if len(several) <= most:
        return list(several)
    return [several[round(place * (len(several) - 1) / (most - 1))] for place in range(most)]


def _rows(file: Path) -> Iterator[Row]:
    import pyarrow.parquet as pq

    with readable(file):
        there = [name for name in COLUMNS if name in pq.read_schema(file).names]
        yield from pq.read_table(file, columns=there).to_pylist()


def _questions(file: Path, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    found = {}
    with ProblemFile(file) as problems:
        for name in names:
            if (problem := problems.get(name)) is not None:
                found[name] = {"question": _shown(problem.question), "expected": _shown(problem.answer or "")}
    return found


def _answer(row: Row) -> dict[str, Any]:
    try:
        told = mapping(json.loads(row.get("parts") or "{}"))
    except (ValueError, TypeError):
        told = {}
    correct = row.get("correct")
    return {
        "step": row.get("step"),
        "text": _shown(str(row.get("text") or "")),
        "reward": number(row.get("reward")),
        "parts": {str(name): value for name, one in told.items() if (value := number(one)) is not None},
        "outcome": "not graded" if correct is None else "right" if correct else "wrong",
        "answer": _shown(str(row.get("extracted_answer") or "")),
        "num_tokens": number(row.get("num_tokens")),
        "is_cut_off": row.get("finish_reason") == "length",
    }


def _shown(text: str) -> str:
    """Return a text as the page shows it: without secrets and control characters, and not too long."""
    text = printable(redact(text))
    return text if len(text) <= MAX_CHARS else f"{text[: MAX_CHARS // 2]} […] {text[-MAX_CHARS // 2 :]}"
