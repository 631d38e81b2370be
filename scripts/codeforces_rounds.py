"""Ask Codeforces for rated rounds, in the shape that `contests` of a benchmark reads (docs/suites.md).

    python scripts/codeforces_rounds.py 2040 2043 2051 > rounds.jsonl

A line of JSON a round: the points of its problems, and of each rated contestant points, penalty and rating before. No
names are written. Codeforces shows 0 as the rating of a first-timer and counts 1,400; here it is 1,400. In their next
five rounds it shows newcomers up to 900 points less than it counts, which cannot be told from a round alone.
"""

import argparse
import json
import sys
import time
import urllib.parse
import urllib.request
from typing import Any

API = "https://codeforces.com/api"
TIMEOUT_S = 120.0
PAUSE_S = 2.0
"""Codeforces answers one request in two seconds."""
FIRST_RATING = 1_400


def main(arguments: list[str] | None = None) -> int:
    """Write the rounds that are named; return 1 if one could not be had."""
    parser = argparse.ArgumentParser(description="Ask Codeforces for rated rounds.")
    parser.add_argument("contests", nargs="+", metavar="CONTEST", help="the number in the contest's address")
    parser.add_argument("--api", default=API, help=f"address of the API (default: {API})")
    parser.add_argument("--pause-s", type=float, default=PAUSE_S, help="seconds between two requests")
    given = parser.parse_args(arguments)
    failed = 0
    for contest in given.contests:
        try:
            found = round_of(contest, given.api, given.pause_s)
        except (OSError, ValueError, KeyError, TypeError) as error:
            print(f"{contest}: {error}", file=sys.stderr)
            failed = 1
            continue
        print(json.dumps(found, separators=(",", ":")), flush=True)
        print(f"{contest}: {len(found['rows']):,} rated contestants", file=sys.stderr)
    return failed


def round_of(contest: str, api: str, pause_s: float) -> dict[str, Any]:
    """Return a round with its rated contestants, in the order of their places.

    Raises:
        OSError: Codeforces cannot be reached, or refuses.
        ValueError: the round is not rated.
    """
    standings = ask(api, "contest.standings", pause_s, contestId=contest, showUnofficial="false")
    changes = ask(api, "contest.ratingChanges", pause_s, contestId=contest)
    before = {change["handle"]: change["oldRating"] or FIRST_RATING for change in changes}
    rows = []
    for row in standings["rows"]:
        (handle,) = [member["handle"] for member in row["party"]["members"]][:1] or [None]
        if handle in before:
            rows.append({"points": row["points"], "penalty": row["penalty"], "old_rating": before[handle]})
    if not rows:
        raise ValueError("nobody's rating changed: it is not rated, or not yet")
    problems = {problem["index"]: problem.get("points") for problem in standings["problems"]}
    return {"contest": str(contest), "problems": problems, "rows": rows}


def ask(api: str, method: str, pause_s: float, **parameters: str) -> Any:
    """Return the result of one method of the API."""
    time.sleep(pause_s)
    address = f"{api}/{method}?{urllib.parse.urlencode(parameters)}"
    with urllib.request.urlopen(address, timeout=TIMEOUT_S) as answer:
        found = json.load(answer)
    if found.get("status") != "OK":
        raise ValueError(found.get("comment") or "refused")
    return found["result"]


if __name__ == "__main__":
    raise SystemExit(main())
