"""Rated rounds in files: what is read, what is refused, and the script that asks Codeforces for them."""

import importlib.util
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from distill.errors import ProblemError
from distill.sources.contests import load_contests

SCRIPT = Path(__file__).parents[2] / "scripts" / "codeforces_rounds.py"
ROWS = [
    {"points": 1500, "penalty": 0, "old_rating": 1900},
    {"points": 500, "penalty": 0, "old_rating": 1500},
    {"points": 0, "penalty": 0, "old_rating": 1200},
]
ROUND = {"contest": "1", "problems": {"A": 500, "B": 1000}, "rows": ROWS}


def written(tmp_path, *rounds, name="rounds.jsonl"):
    path = tmp_path / name
    path.write_text("".join(json.dumps(one) + "\n" for one in rounds))
    return f"file:{path}"


def test_a_round_is_read(tmp_path):
    found = load_contests(written(tmp_path, ROUND, {**ROUND, "contest": 2, "problems": {"A": None, "B": None}}))
    assert found.points == {"1": {"A": 500.0, "B": 1000.0}, "2": {"A": None, "B": None}}
    assert found.rounds["2"].num_contestants == 3
    assert found.rounds["1"].places([600.0], [0.0]).tolist() == [2]


def test_the_hash_is_that_of_what_is_read_in_any_order(tmp_path):
    other = {**ROUND, "contest": "2"}
    shuffled = {**ROUND, "rows": [{**row, "rank": 1} for row in ROWS[::-1]]}
    one = load_contests(written(tmp_path, ROUND, other)).sha256
    assert load_contests(written(tmp_path, other, shuffled, name="b.jsonl")).sha256 == one
    stronger = {**ROUND, "rows": [{**ROWS[0], "old_rating": 1901}, *ROWS[1:]]}
    assert load_contests(written(tmp_path, stronger, other, name="c.jsonl")).sha256 != one
    dearer = {**ROUND, "problems": {"A": 500, "B": 1250}}
    assert load_contests(written(tmp_path, dearer, other, name="d.jsonl")).sha256 != one


@pytest.mark.parametrize(
    ("rounds", "why"),
    [
        ([], "no rounds"),
        ([ROUND, ROUND], "an earlier round"),
        ([{**ROUND, "contest": None}], "missing"),
        ([{**ROUND, "problems": {}}], "no object of problems"),
        ([{**ROUND, "problems": ["A"]}], "no object of problems"),
        ([{**ROUND, "problems": {"A": "500"}}], "neither a number nor null"),
        ([{**ROUND, "problems": {"A": 500, "B": None}}], "others none"),
        ([{**ROUND, "rows": []}], "is no rated round"),
        ([{**ROUND, "rows": None}], "no list of contestants"),
        ([{**ROUND, "rows": [1]}], "no list of contestants"),
        ([{**ROUND, "rows": [ROWS[0], {**ROWS[1], "old_rating": None}]}], "contestant 2 has no number as `old_rating`"),
        ([{**ROUND, "rows": [{**ROWS[0], "points": "5"}]}], "contestant 1 has no number as `points`"),
        ([{**ROUND, "rows": [{**ROWS[0], "old_rating": 20_000}]}], "is no rated round"),
    ],
)
def test_what_is_no_round_is_refused_with_its_place(tmp_path, rounds, why):
    with pytest.raises(ProblemError, match=why) as caught:
        load_contests(written(tmp_path, *rounds))
    assert "rounds.jsonl" in str(caught.value)


def contestant(handle, points, penalty=0):
    return {"party": {"members": [{"handle": handle}]}, "points": points, "penalty": penalty, "rank": 1}


ANSWERS = {
    ("contest.standings", "7"): {
        "problems": [{"contestId": 7, "index": "A", "points": 500.0}, {"contestId": 7, "index": "B1", "points": 750.0}],
        "rows": [contestant("one", 1250.0), contestant("unrated", 600.0), contestant("new", 0.0, 3)],
    },
    ("contest.ratingChanges", "7"): [{"handle": "one", "oldRating": 1700}, {"handle": "new", "oldRating": 0}],
    ("contest.standings", "8"): {"problems": [{"index": "A"}], "rows": [contestant("one", 1.0)]},
    ("contest.ratingChanges", "8"): [],
}


class Api(BaseHTTPRequestHandler):
    def do_GET(self):
        asked = urlsplit(self.path)
        found = ANSWERS.get((asked.path.rpartition("/")[2], parse_qs(asked.query)["contestId"][0]))
        said = {"status": "OK", "result": found} if found is not None else {"status": "FAILED", "comment": "not found"}
        body = json.dumps(said).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def api():
    server = HTTPServer(("127.0.0.1", 0), Api)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/api"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def script():
    spec = importlib.util.spec_from_file_location("codeforces_rounds", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_script_writes_what_is_read_and_nobodys_name(api, script, tmp_path, capsys):
    assert script.main(["7", "--api", api, "--pause-s", "0"]) == 0
    said = capsys.readouterr()
    assert "2 rated contestants" in said.err
    assert "one" not in said.out
    (tmp_path / "rounds.jsonl").write_text(said.out)
    found = load_contests(f"file:{tmp_path / 'rounds.jsonl'}")
    assert found.points == {"7": {"A": 500.0, "B1": 750.0}}
    assert json.loads(said.out)["rows"][1] == {"points": 0.0, "penalty": 3, "old_rating": 1400}


def test_the_script_goes_on_after_a_round_that_is_not_rated_or_not_there(api, script, capsys):
    assert script.main(["8", "9", "7", "--api", api, "--pause-s", "0"]) == 1
    said = capsys.readouterr()
    assert "8: nobody's rating changed" in said.err
    assert "9: not found" in said.err
    assert len(said.out.splitlines()) == 1
