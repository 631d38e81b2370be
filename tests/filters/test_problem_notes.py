"""Which problems are dropped with all their traces."""

from distill.core.records import Problem
from distill.filters.problem_notes import notes_on_problems
from distill.recipe.filter import Duplicates
from distill.sources.evaluation_sets import make_pack

STORY = (
    "A farmer has {n} sheep and sells all but nine of them at the market on Monday morning. How many are left to him?"
)


def problem(name, question):
    return Problem(name, [{"role": "user", "content": question}], "1", "math", "s")


PROBLEMS = [
    problem("a", STORY.format(n=17)),
    problem("b", STORY.format(n=17).replace("left to him", "still left to him")),
    problem("c", STORY.format(n=18)),
    problem("d", "Let $x$ be the least positive integer with nine divisors in all. What is the sum of its digits?"),
]


def test_repeats_name_the_first_and_other_numbers_are_another_problem():
    notes, certificate = notes_on_problems(PROBLEMS, [], Duplicates(problems=0.5))
    assert {name: note.repeats for name, note in notes.items()} == {"b": "a"}
    assert certificate["num_problems_checked"] == 4
    assert certificate["sets"] == []
    assert notes_on_problems(PROBLEMS, [], Duplicates(problems=None))[0] == {}
    assert notes_on_problems(PROBLEMS, [], None)[0] == {}


def test_an_evaluation_item_is_named_and_its_repeat_is_judged_by_the_clean_ones():
    pack = make_pack("exam", [("7", "Let $x$ be the least positive integer with nine divisors in all. Find x.")])
    notes, certificate = notes_on_problems(PROBLEMS, [pack], Duplicates(problems=0.5))
    assert notes["d"].contamination.startswith("exam item 7, ngram: ")
    assert "b" in notes
    assert certificate["num_problems_removed"] == 1
    assert certificate["sets"][0]["name"] == "exam"
    first = make_pack("farm", [("1", PROBLEMS[0].question.replace("still ", ""))])
    notes, _ = notes_on_problems(PROBLEMS[:2], [first], Duplicates(problems=0.5))
    assert {name for name, note in notes.items() if note.contamination} == {"a", "b"}


def test_no_problems():
    notes, certificate = notes_on_problems([], [make_pack("exam", [("7", "What is the sum of it all?")])], Duplicates())
    assert notes == {}
    assert certificate["num_problems_checked"] == 0
