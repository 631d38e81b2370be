r"""The letter that distill extracts from answers to MMLU-Pro against the official script's, each difference explained.

Takes graded answers (JSONL, gzip: `question_id`, `options`, `answer`, `generated_text`, and `pred`, the official
letter). The official rules (TIGER-AI-Lab/MMLU-Pro, `evaluate_from_api.py` at 007ab5c), in order: the first letter after
"answer is"; the last line's letter after "Answer:"; the last capital A to J that stands alone; a random letter. Which
rule gave a `pred` is found by applying them, since a random letter looks like any other.

    python benchmarks/mmlu_pro_extraction.py [--answers ../shared/data/mmlu_pro_graded_half.jsonl.gz] [--show CLASS]

Prints how many answers fall into each class of differences, with the question ids of a few. The last line is JSON: the
same counts, the share of answers on which both agree, and the scores (percent). `official_with_luck` counts random
letters as the official script does; `official` counts them as missing, which is wrong.
"""

import argparse
import gzip
import json
import re
import sys
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from distill.core.records import Problem
from distill.grading import extract

ANSWERS = Path("../shared/data/mmlu_pro_graded_half.jsonl.gz")

CLASSES: dict[str, str] = {
    "same": "both extract the same letter",
    "random_missing": "official: a random letter, as it found none. distill: missing",
    "random_text": "official: a random letter, as it found none. distill: what is announced, which is no option",
    "random_option": "official: a random letter, as it found none. distill: an option named by its text",
    "lone_letter_missing": "official: the last lone capital of a text that announces nothing. distill: missing",
    "lone_letter_text": "official: the last lone capital of the text. distill: what is announced, which is no option",
    "lone_letter_option": "official: the last lone capital of the text. distill: an option named by its text",
    "several": "the text chooses several options. official: the first of them. distill: all of them, which is wrong",
    "word": "official: the first letter of a word after 'answer is'. distill: an option announced later, or the word",
    "first_last": "the text announces two options. official: the first. distill: the last",
    "unexplained": "anything else",
}

Rule = Literal["answer is", "Answer:", "lone letter", "random"]

_ANSWER_IS = re.compile(r"answer is \(?([A-J])\)?")
_ANSWER_COLON = re.compile(r"[aA]nswer:\s*([A-J])")
_LONE = re.compile(r"\b[A-J]\b")
_LETTERS = re.compile(r"[A-J](?:, [A-J])+")
_PART_OF_WORD = re.compile(r"\w")


class Official(NamedTuple):
    """What the official rules find in a text."""

    letter: str | None
    rule: Rule
    end: int = 0
    """Where the letter ends."""


class Compared(NamedTuple):
    """One answer with both extractions."""

    question_id: int
    kind: str
    """One of `CLASSES`."""
    rule: Rule
    gold: str
    stored: str
    """The official letter as stored, random ones included."""
    official: str | None
    ours: str | None


def main() -> None:
    """Compare all answers, print the table, then the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answers", type=Path, default=ANSWERS, help="graded answers, JSONL with gzip")
    parser.add_argument("--show", choices=list(CLASSES), help="print both extractions of each answer of this class")
    options = parser.parse_args()
    if not options.answers.is_file():
        sys.exit(f"{options.answers}: no such file. Name the graded answers with --answers.")
    compared = list(compare(read_rows(options.answers)))
    by_class: dict[str, list[Compared]] = defaultdict(list)
    for one in compared:
        by_class[one.kind].append(one)
    for kind, meaning in CLASSES.items():
        few = ", ".join(str(one.question_id) for one in by_class[kind][:4])
        print(f"{len(by_class[kind]):>6,}  {kind:<20} {meaning}" + (f" ({few})" if few and kind != "same" else ""))
    for one in by_class[options.show] if options.show else ():
        print(f"{one.question_id}: expected {one.gold}, official {one.stored}, distill {one.ours!r}")
    print(json.dumps(summary(compared)))


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the graded answers of a file."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def compare(rows: Iterable[dict[str, Any]]) -> Iterator[Compared]:
    """Yield each answer with what both extract and the class of the difference.

    Raises:
        ValueError: the stored official letter is not what the official rules give.
    """
    for row in rows:
        text, stored = row["generated_text"], row["pred"]
        official = extract_officially(text)
        if official.letter is not None and official.letter != stored:
            raise ValueError(f"question {row['question_id']}: stored {stored}, but the rules give {official.letter}")
        prompt = [{"role": "user", "content": row["question"]}]
        metadata = {"options": row["options"]}
        ours = extract(Problem(str(row["question_id"]), prompt, row["answer"], "choice", "mmlu-pro", metadata), text)
        kind = classify(text, official, ours)
        yield Compared(row["question_id"], kind, official.rule, row["answer"], stored, official.letter, ours)


def extract_officially(text: str) -> Official:
    """Return the letter that the official rules find, and by which rule; no letter where they draw one at random."""
    if found := _ANSWER_IS.search(text):
        return Official(found[1], "answer is", found.end(1))
    lines = (found for found in _ANSWER_COLON.finditer(text))
    # The official `.*` is greedy: of the first line that matches, the last match counts.
    if first := next(lines, None):
        line_end = text.find("\n", first.end())
        last = deque(_ANSWER_COLON.finditer(text, first.start(), line_end if line_end >= 0 else len(text)), maxlen=1)
        found = last[0] if last else first
        return Official(found[1], "Answer:", found.end(1))
    if lone := deque(_LONE.finditer(text), maxlen=1):
        return Official(lone[0][0], "lone letter", lone[0].end())
    return Official(None, "random")


def classify(text: str, official: Official, ours: str | None) -> str:
    """Return the class (of `CLASSES`) of what the two extract from a text."""
    if ours is not None and ours == official.letter:
        return "same"
    is_letter = ours is not None and _LONE.fullmatch(ours) is not None
    if official.rule in ("random", "lone letter"):
        start = "random" if official.rule == "random" else "lone_letter"
        return f"{start}_missing" if ours is None else f"{start}_option" if is_letter else f"{start}_text"
    if ours is not None and _LETTERS.fullmatch(ours):
        return "several"
    if _PART_OF_WORD.match(text, official.end):
        return "word"
    return "first_last" if is_letter else "unexplained"


def summary(compared: list[Compared]) -> dict[str, Any]:
    """Return the counts, the agreement and the scores of compared answers."""
    num = len(compared)
    counts = {kind: sum(one.kind == kind for one in compared) for kind in CLASSES}
    found = [one for one in compared if one.official is not None]
    return {
        "answers": num,
        "agree": counts["same"] / num,
        "agree_by_rule": {
            rule: share_same(compared, rule) for rule in ("answer is", "Answer:", "lone letter", "random")
        },
        "classes": counts,
        "missing": {
            "official": num - len(found),
            "distill": sum(one.ours is None for one in compared),
        },
        "random_letters_right": sum(one.official is None and one.stored == one.gold for one in compared),
        "scores": {
            "official_with_luck": 100 * sum(one.stored == one.gold for one in compared) / num,
            "official": 100 * sum(one.official == one.gold for one in compared) / num,
            "distill": 100 * sum(one.ours == one.gold for one in compared) / num,
        },
    }


def share_same(compared: list[Compared], rule: str) -> list[int]:
    """Return how many answers whose official letter is by this rule are extracted the same, and how many there are."""
    of_rule = [one for one in compared if one.rule == rule]
    return [sum(one.kind == "same" for one in of_rule), len(of_rule)]


if __name__ == "__main__":
    main()
