"""Items of an evaluation that are among the training rows, whatever words are put around a question."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distill.core.records import Problem
from distill.evaluation.contaminated import contaminated_items, question_alone
from distill.results.eval import Protocol

LONG = "A farmer has 17 sheep and sells all but nine of them at the market in the next town. How many are left?"
OTHER = "A train leaves the station at noon with sixty passengers and stops four times. How many seats are free?"
PROMPT = "Think step by step and put your final answer in a box.\n\n{problem}\n\n{options}"


@pytest.fixture
def kept(tmp_path):
    """A function that writes kept rows whose user says these things."""

    def write(*texts):
        folder = tmp_path / "kept"
        folder.mkdir(exist_ok=True)
        rows = [{"prompt": [{"role": "user", "content": text}], "completion": []} for text in texts]
        pq.write_table(pa.Table.from_pylist(rows), folder / "train.parquet")
        return [folder]

    return write


def item(name, question, options=()):
    listed = "\n".join(f"({letter}) {text}" for letter, text in zip("ABCD", options, strict=False))
    content = PROMPT.format(problem=question, options=listed).strip()
    metadata = {"options": list(options)} if options else {}
    return Problem(name, [{"role": "user", "content": content}], "9", "math", "s", metadata)


def test_items_in_the_rows_are_found_through_the_template(kept, measured_set):
    one = measured_set("s", ["hit", "clean"], protocol=Protocol(prompt=PROMPT.removesuffix("\n\n{options}")))
    problems = {"hit": item("hit", LONG), "clean": item("clean", OTHER)}
    found = contaminated_items(kept(f"Please solve this. {LONG} Thanks.", "What is 2 + 2?"), [one], problems)
    assert list(found) == ["hit"]
    assert found["hit"].startswith("ngram: ")


def test_the_template_alone_is_no_match(kept, measured_set):
    one = measured_set("s", ["a"], protocol=Protocol(prompt=PROMPT.removesuffix("\n\n{options}")))
    rows = kept("Think step by step and put your final answer in a box.\n\nWhat is the capital of France?")
    assert contaminated_items(rows, [one], {"a": item("a", LONG)}) == {}


def test_items_without_words_and_evaluations_without_items_are_clean(kept, measured_set):
    one = measured_set("s", ["a"], protocol=Protocol(prompt="{problem}"))
    nothing = Problem("a", [{"role": "user", "content": "?!"}], "9", "math", "s")
    assert contaminated_items(kept("?!"), [one], {"a": nothing}) == {}
    assert contaminated_items(kept("?!"), [], {}) == {}


def test_the_question_without_the_words_around_it(measured_set):
    plain = Problem("a", [{"role": "user", "content": LONG}], "9", "math", "s")
    assert question_alone(plain, measured_set("s", ["a"], protocol=Protocol(prompt=None))) == LONG
    assert question_alone(item("a", LONG), measured_set("s", ["a"], protocol=Protocol(prompt=PROMPT))) == LONG


def test_wording_that_all_questions_share_is_no_contamination(kept, measured_set):
    """Generated problems, held out from those that were trained on, differ in their numbers alone."""
    words = "State the final answer to the following arithmetic problem: "
    names = [str(number) for number in range(20)]
    asked = {n: Problem(n, [{"role": "user", "content": f"{words}{n} + 7 + 1{n} ="}], "9", "gym", "s") for n in names}
    one = measured_set("s", names, protocol=Protocol())
    rows = [f"{words}{number} + 7 + 1{number} =" for number in range(100, 140)]
    assert contaminated_items(kept(*rows), [one], asked) == {}
    assert list(contaminated_items(kept(*rows, asked["3"].question), [one], asked)) == ["3"]


def test_a_piece_that_several_items_have_in_common_is_their_wording(kept, measured_set):
    piece = "given that all of the following eight statements are certainly true"
    starts = ("Alma asks", "Bert says", "Cleo knows", "Dora thinks", "Emil says")
    asked = {n: Problem(n, [{"role": "user", "content": f"{n}, {piece}, which?"}], "9", "math", "s") for n in starts}
    rows = kept(f"Somebody else wonders, {piece}, whether it rains.")
    assert contaminated_items(rows, [measured_set("s", [*starts], protocol=Protocol())], asked) == {}


def test_an_item_that_shares_a_passage_with_others_is_found_by_its_own_words(kept, measured_set):
    passage = (
        "The treaty that ended the long northern war divided the coastal provinces among five quarrelling duchies "
        "whose merchants promptly resumed their trade in salt, amber and furs. "
    )
    ends = (
        "Which group benefited the most from the agreement described in the text?",
        "What was the principal cause of the later rebellion that it alludes to?",
        "Which commodity became scarce in the following decade because of river closures?",
        "Who among the dukes first broke the terms of this agreement, and when?",
        "Why did merchants of the interior favour the settlement that was reached?",
    )
    asked = {
        str(i): Problem(str(i), [{"role": "user", "content": passage + end}], "9", "math", "s")
        for i, end in enumerate(ends)
    }
    one = measured_set("s", list(asked), protocol=Protocol())
    found = contaminated_items(kept(f"Answer with care.\n{asked['2'].question} Think first."), [one], asked)
    assert list(found) == ["2"]
    assert contaminated_items(kept(f"Answer with care.\n{passage} What of it?"), [one], asked) == {}
