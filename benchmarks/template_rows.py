"""Rows per second that are rendered by a chat template, confined with limits against as transformers does it.

Worked sums of two lengths are rendered as prompts and as whole rows, and then turned into token rows,
with SmolLM2's tokenizer. Peer: the tokenizer's own `apply_chat_template`, in this process and without limits.

    python benchmarks/template_rows.py [--rows 20000] [--terms 3 40]

The last line is JSON: rows per second of both, and ours over theirs, for rendering and for token rows.
"""

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

from training_rows import SMOLLM2, worked_sums

from distill.models.hub import resolve_model
from distill.models.tokenizers import encode_all, load_tokenizer
from distill.training.rows import BATCH_ROWS, SourceRow, render_rows, tokenise


def main() -> None:
    """Measure each length, ours and theirs in turn, and print the better of three."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000, help="rows at each length")
    parser.add_argument("--terms", type=int, nargs="+", default=[3, 40], help="numbers that a sum adds up")
    options = parser.parse_args()
    tokenizer = load_tokenizer(resolve_model(SMOLLM2).path, None)
    found: dict[str, Any] = {}
    for terms in options.terms:
        rows = [
            SourceRow(str(number), row["prompt"], row["completion"])
            for number, row in enumerate(worked_sums(options.rows, [terms] * options.rows))
        ]
        chars = sum(len(m["content"]) for row in rows for m in (*row.prompt, *row.completion)) / len(rows)
        ways: dict[str, tuple[Callable[[list[SourceRow]], Any], Callable[[list[SourceRow]], Any]]] = {
            "render": (lambda some: _ours(tokenizer, some), lambda some: _theirs(tokenizer, some)),
            "token rows": (
                lambda some: tokenise(tokenizer, some),
                lambda some: encode_all(tokenizer, _theirs(tokenizer, some)),
            ),
        }
        for name, (ours, theirs) in ways.items():
            speeds = [(_rows_per_s(ours, rows), _rows_per_s(theirs, rows)) for _ in range(3)]
            mine, peer = (max(speed[side] for speed in speeds) for side in (0, 1))
            print(f"{name}, rows of {chars:,.0f} characters: {mine:,.0f} rows/s, theirs {peer:,.0f}, {mine / peer:.2f}")
            found[f"{name}, {terms} terms"] = {"ours": round(mine), "theirs": round(peer), "ratio": mine / peer}
    print(json.dumps(found))


def _ours(tokenizer: Any, rows: list[SourceRow]) -> list[str]:
    return render_rows(tokenizer, rows, whole=False) + render_rows(tokenizer, rows, whole=True)


def _theirs(tokenizer: Any, rows: list[SourceRow]) -> list[str]:
    prompts = [tokenizer.apply_chat_template(row.prompt, tokenize=False, add_generation_prompt=True) for row in rows]
    return prompts + [tokenizer.apply_chat_template(row.prompt + row.completion, tokenize=False) for row in rows]


def _rows_per_s(way: Callable[[list[SourceRow]], Any], rows: list[SourceRow]) -> float:
    began = time.perf_counter()
    for start in range(0, len(rows), BATCH_ROWS):
        way(rows[start : start + BATCH_ROWS])
    return len(rows) / (time.perf_counter() - began)


if __name__ == "__main__":
    main()
