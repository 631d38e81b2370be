"""How often loop detection stops a trace that is not a loop, and how much of real loops it saves.

Each text is tokenised and looked at as sampling does, every so many tokens. A trace that ends by itself, with more text
after the place where it would have been stopped that does not go on repeating, is a false alarm. Peer: stopping at the
first repetition of any piece, 8 times over, without a least length (`--min-tokens 16`).

    python benchmarks/loop_false_alarms.py FILE.jsonl [FILE.json …] [--model ID]

Takes JSONL or JSON files of objects; every string, or string in a list, of at least 400 characters counts as a trace.
The last line is JSON: traces, tokens, alarms with our thresholds and with the peer's.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from distill.engines.loops import CHECK_EVERY, loop_period
from distill.models.hub import resolve_model
from distill.models.tokenizers import load_tokenizer
from distill.recipe.sampling import LoopStop

MIN_CHARACTERS = 400


def main() -> None:
    """Look at every trace, print each alarm, then the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+", help="JSONL or JSON files that hold traces")
    parser.add_argument("--model", default="HuggingFaceTB/SmolLM2-135M-Instruct", help="whose tokenizer counts")
    parser.add_argument("--min-tokens", type=int, default=16, help="least length of a loop for the peer")
    options = parser.parse_args()
    tokenizer = load_tokenizer(resolve_model(options.model).path, "chatml")
    thresholds = {"ours": LoopStop(), "peer": LoopStop(min_tokens=options.min_tokens)}
    alarms = dict.fromkeys(thresholds, 0)
    num_traces = num_tokens = 0
    for text in (text for file in options.files for text in traces_in(file)):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        num_traces, num_tokens = num_traces + 1, num_tokens + len(ids)
        for name, loops in thresholds.items():
            place = first_alarm(ids, loops)
            if place is not None:
                alarms[name] += 1
                print(
                    f"{name}: after {place} of {len(ids)} tokens: …{tokenizer.decode(ids[place - 40 : place])[-100:]!r}"
                )
    rates = {name: num / num_traces for name, num in alarms.items()}
    print(json.dumps({"ratio": rates["ours"], "traces": num_traces, "tokens": num_tokens, "alarms": alarms}))


def first_alarm(ids: list[int], loops: LoopStop) -> int | None:
    """The number of tokens after which sampling would have stopped, or `None`."""
    places = range(CHECK_EVERY, len(ids) + 1, CHECK_EVERY)
    return next((place for place in places if loop_period(ids[:place], loops) is not None), None)


def traces_in(file: Path) -> Iterator[str]:
    """Every long string in a file's objects."""
    text = file.read_text()
    rows = [json.loads(line) for line in text.splitlines() if line] if file.suffix == ".jsonl" else json.loads(text)
    return (string for row in rows for string in strings_in(row) if len(string) >= MIN_CHARACTERS)


def strings_in(value: Any) -> Iterator[str]:
    """Every string in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from strings_in(inner)


if __name__ == "__main__":
    main()
