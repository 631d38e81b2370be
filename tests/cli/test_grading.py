"""`distill grade`: what it says of an answer, and how it takes it."""

import io
import json
import sys

import pytest


def graded(distill, *words):
    code, out, err = distill("grade", *words, "--json")
    assert code == 0, err
    return json.loads(out)


def test_every_candidate_and_the_one_that_counts(distill):
    text = "First \\boxed{}.\nThe answer is 58, in total.\n\nNote: the answer is rounded."
    said = graded(distill, text, "--gold", "58")
    assert (said["correct"], said["extracted_answer"], said["reason"]) == (True, "58", None)
    box, first, second = said["candidates"]
    assert (box["kind"], box["answer"], box["chosen"], box["why"]) == ("box", None, False, "not valid: is empty")
    assert (first["line"], first["column"], first["text"]) == (2, 5, "answer is 58")
    assert text[first["start"] : first["end"]] == first["text"]
    assert (first["chosen"], said["chosen"]) == (True, 1)
    assert second["why"] == "not valid: is prose"


def test_a_wrong_and_an_ungraded_answer(distill):
    wrong = graded(distill, "The answer is (A) or (B)", "--gold", "A", "--task", "choice")
    assert (wrong["correct"], wrong["reason"], wrong["extracted_answer"]) == (False, "wrong_answer", "A, B")
    ungraded = graded(distill, r"\boxed{1}", "--gold", "\x0crac{1}{2}")
    assert (ungraded["correct"], ungraded["reason"]) == (None, "ungraded_gold")
    nothing = graded(distill, "I do not know.", "--gold", "1")
    assert (nothing["reason"], nothing["chosen"], nothing["candidates"]) == ("no_answer", None, [])


def test_options_and_the_last_number(distill):
    said = graded(distill, "Answer: Oslo", "--gold", "B", "--task", "choice", "--option", "Rome", "--option", "Oslo")
    assert (said["correct"], said["options"]) == (True, ["Rome", "Oslo"])
    assert graded(distill, "It makes 58 in all", "--gold", "58")["correct"] is False
    assert graded(distill, "It makes 58 in all", "--gold", "58", "--last-number")["correct"] is True


def test_only_what_follows_the_thinking_is_graded_and_places_are_those_of_the_whole_text(distill, tmp_path):
    text = "<think>\n\\boxed{1}\n</think>\n\nThe answer is 2."
    (tmp_path / "answer.txt").write_text(text)
    said = graded(distill, "--file", str(tmp_path / "answer.txt"), "--gold", "2")
    assert said["correct"] is True
    assert [candidate["line"] for candidate in said["candidates"]] == [5]
    assert text[said["candidates"][0]["start"] :] == "answer is 2."


def test_standard_input(distill, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("#### 58"))
    assert graded(distill, "-", "--gold", "58")["correct"] is True


def test_a_model_wrote_the_text_so_nothing_in_it_reaches_the_terminal(distill):
    code, out, _ = distill("grade", "The answer is \x1b[31m[red]58[/red].", "--gold", "58")
    assert code == 0
    assert "\x1b" not in out
    assert "[red]" in out


def test_parsing_has_its_limits(distill):
    said = graded(distill, r"\boxed{\sqrt{16}}", "--gold", "4", "--timeout", "60")
    assert said["correct"] is True


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ([], "Give the answer either"),
        (["x", "--file", "y"], "Give the answer either"),
        (["--file", "nowhere.txt"], "is not a file"),
        (["x", "--task", "gym"], "is not one of math, choice"),
    ],
)
def test_what_is_refused(distill, words, complaint):
    code, _, err = distill("grade", *words, "--gold", "1")
    assert code == 2
    assert complaint in err
