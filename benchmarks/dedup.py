"""Texts in, duplicates out: texts per second over datasketch, and which of its duplicates are found.

Both fold texts in the same way, take pieces of five words, keep the first of near-duplicates and say for each other one
which kept text it repeats. datasketch: `MinHash(num_perm=128)` over the pieces and `MinHashLSH`, its candidates cut at
the threshold by its own estimate. distill: `near_duplicate_texts`, its candidates checked by the exact share of common
pieces. Each in the same process and on one thread, taking turns, timed in CPU seconds, over three sets of texts:
problems (200 characters), responses (1,200) and traces (8,000), with a tenth as many planted copies among them, up to
2% of their words changed or two sentences exchanged.

A duplicate that datasketch finds counts for the recall if its exact similarity is at the threshold or over it; it is
found if distill has the text repeat the same kept one, or another one that is as near as the threshold asks.

    python benchmarks/dedup.py [--rounds 5] [--threshold 0.9] [--shared ../shared/data] [--signatures 1000000]

With `--signatures N`, also the time and memory of `near_duplicates` alone over N signatures, a tenth of them planted
copies. The last line is JSON: datasketch's time over distill's, all texts together; each set by itself; every round.
"""

import argparse
import json
import os
import random
import re
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("RAYON_NUM_THREADS", "1")  # rensa reads it when it is first used

import numpy as np

from distill.filters.dedup import NUM_SLOTS, near_duplicate_texts, near_duplicates
from distill.filters.shingles import SAME_COMMANDS, SHINGLE_WORDS, SILENT_COMMANDS

Repeats = dict[int, int]

_SILENT = re.compile(rf"\\(?:{'|'.join(name.decode() for name in SILENT_COMMANDS)})(?![a-zA-Z0-9])")
_SAME = re.compile(rf"\\({'|'.join(name.decode() for name in SAME_COMMANDS)})(?![a-zA-Z0-9])")
_WORD = re.compile(r"[a-z0-9\x80-\U0010ffff]+|[-+*/^=<>|%]")
_SENTENCE = re.compile(r"(?<=[.!?])\s+")


def main() -> None:
    """Take turns, print each round, then what was found and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each (the median counts)")
    parser.add_argument("--threshold", type=float, default=0.9, help="least Jaccard similarity of duplicates")
    parser.add_argument("--shared", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--signatures", type=int, default=0, help="also measure near_duplicates over so many")
    options = parser.parse_args()
    sets = {
        "problems": with_copies(problems(options.shared), 1),
        "responses": with_copies([text for each in responses(options.shared) for text in each], 2),
        "traces": with_copies(traces(options.shared), 3),
    }
    ways: dict[str, Callable[[Sequence[str], float], Repeats]] = {
        "distill": near_duplicate_texts,
        "datasketch": by_datasketch,
    }
    for find in ways.values():
        find(sets["problems"][:100], options.threshold)  # imports and tables
    seconds: dict[str, dict[str, list[float]]] = {name: {way: [] for way in ways} for name in sets}
    found: dict[str, dict[str, Repeats]] = {name: {} for name in sets}
    for turn in range(options.rounds):
        for name, texts in sets.items():
            for way in ways if turn % 2 == 0 else reversed(ways):
                started = time.process_time()
                found[name][way] = ways[way](texts, options.threshold)
                seconds[name][way].append(time.process_time() - started)
                rate = len(texts) / seconds[name][way][-1]
                print(f"{name:>9} {way:>10}: {rate:10,.0f} texts/s, {len(found[name][way])} duplicates", flush=True)
    medians = {name: {way: statistics.median(rounds) for way, rounds in each.items()} for name, each in seconds.items()}
    total = {way: sum(medians[name][way] for name in sets) for way in ways}
    agreement = [compare(sets[name], found[name], options.threshold) for name in sets]
    num_theirs, num_common = sum(a["datasketch_right"] for a in agreement), sum(a["found_too"] for a in agreement)
    result = {
        "ratio": total["datasketch"] / total["distill"],
        "recall": num_common / num_theirs,
        "sets": {
            name: {
                "num_texts": len(texts),
                "mean_chars": statistics.mean(map(len, texts)),
                "ratio": medians[name]["datasketch"] / medians[name]["distill"],
                **agreement[place],
            }
            for place, (name, texts) in enumerate(sets.items())
        },
        "seconds": seconds,
    }
    if options.signatures:
        result["near_duplicates"] = many_signatures(options.signatures, options.threshold)
    print(json.dumps(result))


def by_datasketch(texts: Sequence[str], threshold: float) -> Repeats:
    """MinHash and MinHashLSH, the permutations made once, each sketch filled in one call."""
    from datasketch import MinHash, MinHashLSH  # type: ignore[import-untyped]

    index = MinHashLSH(threshold=threshold, num_perm=128)
    sketches = MinHash.generator(([p.encode() for p in pieces(text)] for text in texts), num_perm=128)
    kept: dict[int, Any] = {}
    repeats: Repeats = {}
    for place, sketch in enumerate(sketches):
        near = sorted(other for other in index.query(sketch) if kept[other].jaccard(sketch) >= threshold)
        if near:
            repeats[place] = near[0]
        else:
            kept[place] = sketch
            index.insert(place, sketch, check_duplication=False)
    return repeats


def pieces(text: str) -> set[str]:
    """The pieces of five words, as strings; all pieces of a shorter text."""
    text = _SAME.sub(lambda command: " " + SAME_COMMANDS[command[1].encode()].decode(), _SILENT.sub(" ", text))
    words = _WORD.findall(text.lower())
    if len(words) >= SHINGLE_WORDS:
        return {" ".join(piece) for piece in zip(*(words[n:] for n in range(SHINGLE_WORDS)), strict=False)}
    return {" ".join(words[i:j]) for i in range(len(words)) for j in range(i + 1, len(words) + 1)}


def compare(texts: Sequence[str], found: dict[str, Repeats], threshold: float) -> dict[str, Any]:
    """How many duplicates each found, how many of datasketch's are right, and how many of these distill found."""

    def similar(earlier: int, later: int) -> bool:
        left, right = pieces(texts[earlier]), pieces(texts[later])
        return len(left & right) / len(left | right) >= threshold

    ours, theirs = found["distill"], found["datasketch"]
    right = {later: earlier for later, earlier in theirs.items() if similar(earlier, later)}
    also = [
        later
        for later, earlier in right.items()
        if later in ours and (ours[later] == earlier or similar(ours[later], later))
    ]
    return {
        "distill_found": len(ours),
        "distill_right": sum(similar(earlier, later) for later, earlier in ours.items()),
        "datasketch_found": len(theirs),
        "datasketch_right": len(right),
        "found_too": len(also),
    }


def many_signatures(num: int, threshold: float) -> dict[str, float]:
    """Seconds and peak memory of `near_duplicates` over random signatures, each tenth a copy with 5% changed slots."""
    dice = np.random.default_rng(0)
    matrix = dice.integers(0, 1 << 16, (num, NUM_SLOTS), dtype=np.uint16)
    copies = np.arange(9, num, 10)
    matrix[copies] = matrix[copies - dice.integers(1, 9, len(copies))]
    changed = dice.integers(0, NUM_SLOTS, (len(copies), NUM_SLOTS // 20))
    matrix[copies[:, None], changed] = dice.integers(0, 1 << 16, changed.shape, dtype=np.uint16)
    started = time.process_time()
    repeats = near_duplicates(matrix, threshold)
    return {
        "num_signatures": num,
        "num_copies": len(copies),
        "num_found": len(repeats),
        "seconds": time.process_time() - started,
        "signatures_gib": matrix.nbytes / 2**30,
        "peak_memory_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def problems(shared: Path) -> list[str]:
    """The questions of MATH and GSM8K."""
    math = [row["problem"] for row in json.loads((shared / "math_train.json").read_text(encoding="utf-8"))]
    lines = (shared / "gsm8k_train.jsonl").read_text(encoding="utf-8").splitlines()
    return math + [json.loads(line)["question"] for line in lines]


def responses(shared: Path) -> list[list[str]]:
    """Graded responses to problems of MATH, the eight of each problem together."""
    lines = (shared / "graded_math_cot_100.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["code"] for line in lines]


def traces(shared: Path) -> list[str]:
    """Texts as long as traces, each seven responses drawn at random: twice as many as there are responses."""
    dice = random.Random(0)
    found = [text for each in responses(shared) for text in each]
    return ["\n\n".join(dice.sample(found, 7)) for _ in range(2 * len(found))]


def with_copies(texts: Sequence[str], seed: int) -> list[str]:
    """The texts and a tenth as many copies with other words or their sentences reordered, shuffled."""
    dice = random.Random(seed)
    copies = [
        reordered(text, dice) if dice.random() < 0.3 else edited(text, dice)
        for text in dice.sample(texts, len(texts) // 10)
    ]
    everything = [*texts, *copies]
    dice.shuffle(everything)
    return everything


def edited(text: str, dice: random.Random) -> str:
    """Up to 2% of the words replaced, at least one."""
    words = text.split()
    for place in dice.sample(range(len(words)), max(1, int(len(words) * dice.uniform(0.0, 0.02)))):
        words[place] = dice.choice(["then", "so", "value", "result", "number", "42"])
    return " ".join(words)


def reordered(text: str, dice: random.Random) -> str:
    """Two neighbouring sentences change places."""
    sentences = _SENTENCE.split(text)
    place = dice.randrange(len(sentences))
    return " ".join([*sentences[:place], *reversed(sentences[place : place + 2]), *sentences[place + 2 :]])


if __name__ == "__main__":
    main()
