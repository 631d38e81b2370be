"""Characters per second and core that `measure` judges readable or not, over the straightforward way; and how well.

Peer: the script of each character by `unicodedata.name`, CLD2 on the whole text, zlib at level 6 on the whole text. It
finds mixed languages and repetition only. Both go over the same traces, taking turns; CPU time counts.

    python benchmarks/readability.py [--rounds 5] [--shared ../shared/data] [--traces 100]

`--shared` is a folder with `graded_math_cot_100.jsonl`, `math500.json` and `sample_*_outputs.json`; without it the
traces are synthetic. Prints, of the default thresholds, false alarms on clean traces and recall on planted ones. The
last line is JSON: our rate over the peer's, both rates, false alarms and recall.
"""

import argparse
import json
import random
import statistics
import time
import unicodedata
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import planted_traces
import pycld2
from planted_traces import Trace

from distill.filters.readability import measure, unreadable
from distill.recipe.filter import Readability

LONG_CHARS = 6_500
"""Only traces of about 8,000 characters, or longer, are timed."""


def main() -> None:
    """Take turns, print each round, then false alarms and recall."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each (the median counts)")
    parser.add_argument("--shared", type=Path, default=Path("../shared/data"), help="folder of real traces")
    parser.add_argument("--traces", type=int, default=100, help="synthetic traces, where there are no real ones")
    options = parser.parse_args()
    real = options.shared.is_dir()
    traces = planted_traces.real_traces(options.shared) if real else planted_traces.synthetic_traces(options.traces)
    singles = planted_traces.real_responses(options.shared) if real else []
    long = [trace for trace in traces if sum(map(len, trace)) >= LONG_CHARS]
    rates = rates_of(options.rounds, long)
    medians = {name: statistics.median(found) for name, found in rates.items()}
    alarms, num_clean = false_alarms([*traces, *singles])
    result = {
        "ratio": medians["ours"] / medians["peer"],
        "chars_per_second": medians,
        "mean_chars": statistics.mean(sum(map(len, trace)) for trace in long),
        "clean_traces": num_clean,
        "false_alarms": alarms,
        "recall": recalls(traces),
        "rounds": rates,
    }
    print(json.dumps(result))


def rates_of(rounds: int, traces: Sequence[Trace]) -> dict[str, list[float]]:
    """Characters per second of CPU time, each round."""
    ways: dict[str, Callable[[str, str], object]] = {"ours": ours, "peer": peer}
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():  # what is imported and compiled on first use
        way(*traces[0])
    num_chars = sum(len(reasoning) + len(content) for reasoning, content in traces)
    for turn in range(rounds):
        for name in ways if turn % 2 == 0 else reversed(ways):
            started = time.process_time()
            for reasoning, content in traces:
                ways[name](reasoning, content)
            rates[name].append(num_chars / (time.process_time() - started))
            print(f"{name}: {rates[name][-1] / 1e6:.2f} million characters/s", flush=True)
    return rates


def ours(reasoning: str, content: str) -> object:
    """All measures."""
    return measure(reasoning, content, "en")


def peer(reasoning: str, content: str) -> object:
    """Scripts character by character, then whole-text CLD2 and zlib."""
    text = f"{reasoning}\n\n{content}"
    scripts = Counter(unicodedata.name(char, "UNKNOWN").split(" ")[0] for char in text if char.isalpha())
    raw = text.encode()
    return scripts, pycld2.detect(raw), len(raw) / len(zlib.compress(raw, 6))


def false_alarms(clean: Sequence[Trace]) -> tuple[dict[str, int], int]:
    """How many clean traces each reason drops. Damaged responses and real code blocks among them count too."""
    counts = Counter(reason for trace in clean for reason in reasons_of(trace))
    return {reason: counts[reason] for reason in planted_traces.FAULTS}, len(clean)


def recalls(traces: Sequence[Trace]) -> dict[str, float]:
    """Share of the planted traces that are found, by reason; and by language, two sentences where scripts agree."""
    dice = random.Random(0)
    found = {reason: recall(reason, planted_traces.plant(reason, traces, dice)) for reason in planted_traces.FAULTS}
    for language in planted_traces.OTHER_SCRIPTS:
        planted = [(planted_traces.plant_language(text, language, dice), content) for text, content in traces]
        found[f"mixed_language {language}, 0.5%"] = recall("mixed_language", planted)
    for language in planted_traces.SAME_SCRIPT:
        for num in (1, 2):
            planted = [(planted_traces.plant_sentences(text, language, dice, num), content) for text, content in traces]
            found[f"mixed_language {language}, sentences: {num}"] = recall("mixed_language", planted)
    for name, share in found.items():
        print(f"recall of {name}: {share:.3f}", flush=True)
    return found


def recall(reason: str, planted: Sequence[Trace]) -> float:
    """Share of the traces that are dropped for the reason."""
    return sum(reason in reasons_of(trace) for trace in planted) / len(planted)


def reasons_of(trace: Trace) -> list[str]:
    """What the default thresholds drop a trace for."""
    return unreadable(measure(*trace, "en", planted_traces.INSTRUCTIONS), Readability())


if __name__ == "__main__":
    main()
