"""Problems per second of decontamination, over a dict of 8-word strings as open-r1's script keeps it.

Both read the same evaluation items and look the same training problems up, from the texts on: building is part of the
time. The peer normalises as open-r1 does (lower case, white space) and makes each problem's 8-word strings once for
each evaluation set. Recall is that of whole short items and of 8-word pieces of items, planted into other text.

    python benchmarks/decontaminate.py --data FOLDER [--rounds 5]

The folder holds math500.json, aime24.jsonl, aime25.jsonl, gsm8k_test.jsonl, math_train.json, gsm8k_train.jsonl. The
last line is JSON: the ratio of the rates, recall, the problems that each drops, and every round.
"""

import argparse
import json
import random
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from distill.filters.decontaminate import Decontaminator
from distill.filters.pieces import NUM_WORDS
from distill.sources.evaluation_sets import make_pack
from distill.sources.tables import file_rows

EVALUATION = ("math500.json", "aime24.jsonl", "aime25.jsonl", "gsm8k_test.jsonl")
TRAINING = ("math_train.json", "gsm8k_train.jsonl")
Sets = dict[str, list[str]]
Found = list[set[str]]
"""The evaluation sets that each text repeats."""


def main() -> None:
    """Take turns, print each round, then the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the data sets")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each (the median counts)")
    options = parser.parse_args()
    sets = {name: questions(options.data / name) for name in EVALUATION}
    texts = [text for name in TRAINING for text in questions(options.data / name)]
    ways: dict[str, Callable[[Sets, list[str]], Found]] = {"distill": by_distill, "open_r1": by_strings}
    rates: dict[str, list[float]] = {name: [] for name in ways}
    dropped: dict[str, int] = {}
    for turn in range(options.rounds):
        for name in ways if turn % 2 == 0 else reversed(ways):
            started = time.perf_counter()
            found = ways[name](sets, texts)
            rates[name].append(len(texts) / (time.perf_counter() - started))
            dropped[name] = sum(map(bool, found))
            print(f"{name:>8}: {rates[name][-1]:,.0f} problems/s", flush=True)
    medians = {name: statistics.median(found) for name, found in rates.items()}
    planted = plant(sets)
    result = {
        "ratio": medians["distill"] / medians["open_r1"],
        "problems": len(texts),
        "planted": len(planted),
        "recall": {name: recall(way, sets, planted) for name, way in ways.items()},
        "dropped": dropped,
        "problems_per_second": medians,
        "rounds": rates,
    }
    print(json.dumps(result))


def questions(path: Path) -> list[str]:
    """The questions of a file."""
    return [str(row.get("problem") or row["question"]) for _, row in file_rows(path)]


def by_distill(sets: Sets, texts: list[str]) -> Found:
    """distill's way, the packs' checksums included."""
    packs = [make_pack(name, ((str(i), text) for i, text in enumerate(items))) for name, items in sets.items()]
    return [{hit.set_name for hit in hits} for hits in Decontaminator(packs).hits_of_all(texts)]


def by_strings(sets: Sets, texts: list[str]) -> Found:
    """A dict of 8-word strings for each set."""
    lookups: dict[str, dict[str, set[int]]] = {}
    for name, items in sets.items():
        lookup: dict[str, set[int]] = defaultdict(set)
        for number, item in enumerate(items):
            for gram in word_strings(item):
                lookup[gram].add(number)
        lookups[name] = lookup
    found: Found = [set() for _ in texts]
    for name, lookup in lookups.items():
        for own, text in zip(found, texts, strict=True):
            # All are looked up, found or not, and for each set made anew, as the script does.
            if True in {gram in lookup for gram in set(word_strings(text))}:
                own.add(name)
    return found


def word_strings(text: str) -> list[str]:
    """Every 8 words of a text in a row, in lower case with single spaces."""
    words = " ".join(text.lower().strip().split()).split()
    return [" ".join(words[i : i + NUM_WORDS]) for i in range(len(words) - NUM_WORDS + 1)]


def plant(sets: Sets) -> list[tuple[str, str]]:
    """(set, text): of each item 8 words in a row, or all of a shorter one, with other words around them."""
    dice = random.Random(0)
    planted = []
    for name, items in sets.items():
        for item in items:
            words = item.split()
            start = dice.randrange(max(1, len(words) - NUM_WORDS + 1))
            piece = " ".join(words[start : start + NUM_WORDS])
            planted.append((name, f"Lorem ipsum dolor {piece} consectetur adipiscing elit."))
    return planted


def recall(way: Callable[[Sets, list[str]], Found], sets: Sets, planted: list[tuple[str, str]]) -> float:
    """Share of the planted texts that name the set they come from."""
    found = way(sets, [text for _, text in planted])
    return sum(name in own for (name, _), own in zip(planted, found, strict=True)) / len(planted)


if __name__ == "__main__":
    main()
