"""IFEval: each of its 25 checks, the loose forms of an answer, scores, and the published figures."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.core.records import Problem
from distill.grading import GRADERS, QUICK, Grade, Unsettled, grade, grade_all, quick_grade
from distill.grading.instruction_checks import CHECKS
from distill.grading.instructions import (
    InstructionResult,
    check_all,
    check_problem,
    loose_variants,
)
from distill.grading.pool import GradingPool
from distill.scores.followed import instruction_figures

SHARED_DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
FRENCH = "Le chat dort sur le canapé pendant que la pluie tombe doucement dans le jardin."
ENGLISH = "The cat sleeps on the sofa while the rain falls softly in the garden."
LIST = "Two things:\n* one\n  - two"

any_text = st.text(st.characters(exclude_categories=()))


def strictly(id_, response, **kwargs):
    (result,) = check_all([id_], [kwargs], response)
    return result.strict


def problem(ids, kwargs):
    return Problem("p", [], None, "instructions", "test", {"instruction_ids": ids, "kwargs": kwargs})


def sentences_asked(relation, num):
    return {"relation": relation, "num_sentences": num}


CASES = [
    (
        "change_case:capital_word_frequency",
        {"capital_relation": "at least", "capital_frequency": 3},
        "I SAW it. A dog",
        1,
    ),
    (
        "change_case:capital_word_frequency",
        {"capital_relation": "at least", "capital_frequency": 4},
        "I SAW it. A dog",
        0,
    ),
    ("change_case:capital_word_frequency", {"capital_relation": "less than", "capital_frequency": 3}, "I SAW it", 1),
    ("change_case:capital_word_frequency", {"capital_relation": "less than", "capital_frequency": 2}, "I SAW it", 0),
    ("change_case:capital_word_frequency", {"capital_relation": "at least", "capital_frequency": 2}, "WELL-KNOWN", 0),
    ("change_case:capital_word_frequency", {"capital_relation": "at least", "capital_frequency": 2}, "I'M", 1),
    ("change_case:capital_word_frequency", {"capital_relation": "at least", "capital_frequency": 2}, "I'll not", 0),
    ("change_case:capital_word_frequency", {"capital_relation": "at least", "capital_frequency": 0}, "none", 1),
    ("change_case:capital_word_frequency", {"capital_relation": "less than", "capital_frequency": 0}, "none", 0),
    ("change_case:english_capital", {}, ENGLISH.upper(), 1),
    ("change_case:english_capital", {}, ENGLISH, 0),
    ("change_case:english_capital", {}, "123", 0),
    ("change_case:english_lowercase", {}, ENGLISH.lower(), 1),
    ("change_case:english_lowercase", {}, ENGLISH, 0),
    ("change_case:english_lowercase", {}, FRENCH.lower(), 0),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Name a city. "}, "\nname a city.\n\nParis", 1),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Name a city."}, "Sure! Name a city.\n\nParis", 0),
    ("combination:two_responses", {}, "One.\n******\nTwo.", 1),
    ("combination:two_responses", {}, "******One.******Two.******", 1),
    ("combination:two_responses", {}, "One.\n******\n One.", 0),
    ("combination:two_responses", {}, "One.\n***\nTwo.", 0),
    ("combination:two_responses", {}, "One.\n******\n******\nTwo.", 0),
    ("combination:two_responses", {}, "One.******Two.******Three.", 0),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[name] lives at [address].", 1),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[name] lives at [address\n].", 0),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[[name]]", 0),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[][]", 1),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Bye.\n\np. s. One more thing", 1),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Bye.\n\nPS One more thing", 0),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, "Bye.\n\nP.P.S. More", 1),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, "Bye.\n\nP.S. More", 0),
    ("detectable_content:postscript", {"postscript_marker": "Note:"}, "note: more", 1),
    ("detectable_format:constrained_response", {}, "I thought about it. My answer is maybe.", 1),
    ("detectable_format:constrained_response", {}, "My answer is perhaps.", 0),
    ("detectable_format:constrained_response", {}, "my answer is yes.", 0),
    ("detectable_format:json_format", {}, ' {"a": [1, null]} ', 1),
    ("detectable_format:json_format", {}, '```json\n{"a": 1}\n```', 1),
    ("detectable_format:json_format", {}, '```\n{"a": 1}\n```', 1),
    ("detectable_format:json_format", {}, "9" * 5_000, 1),
    ("detectable_format:json_format", {}, "{'a': 1}", 0),
    ("detectable_format:json_format", {}, 'Here: {"a": 1}', 0),
    ("detectable_format:json_format", {}, "[" * 100_000, None),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "Day", "num_sections": 2},
        "Day 1\nWalk.\nDay2\nRest.",
        1,
    ),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "Day", "num_sections": 2},
        "Day 1\nWalk.\nDay II\nRest.",
        0,
    ),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "Day", "num_sections": 2},
        "Day 1\nWalk.\nDAY 2\nRest.",
        0,
    ),
    ("detectable_format:multiple_sections", {"section_spliter": "Day", "num_sections": 1}, "Day 1 Day 2", 1),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, LIST, 1),
    ("detectable_format:number_bullet_lists", {"num_bullets": 3}, LIST, 0),
    ("detectable_format:number_bullet_lists", {"num_bullets": 1}, LIST, 0),
    ("detectable_format:number_bullet_lists", {"num_bullets": 1}, "**bold**\n* one\n+ two", 1),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* one\n---", 1),
    ("detectable_format:number_bullet_lists", {"num_bullets": 1}, "*\n* one", 1),
    ("detectable_format:number_bullet_lists", {"num_bullets": 0}, "none\n*", 1),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, "*one* and **two**", 1),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, "*one* and ** **", 0),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 1}, "*one\ntwo*", 0),
    ("detectable_format:title", {}, "<<Rain>>\nIt falls.", 1),
    ("detectable_format:title", {}, "It falls. <<<Rain>>>", 1),
    ("detectable_format:title", {}, "<< >>\nIt falls.", 0),
    ("detectable_format:title", {}, "<<Rain\n>>", 0),
    ("detectable_format:title", {}, "<Rain>", 0),
    ("keywords:existence", {"keywords": ["rain", "cat"]}, "A CAT in a raincoat", 1),
    ("keywords:existence", {"keywords": ["rain", "dog"]}, "A CAT in a raincoat", 0),
    ("keywords:existence", {"keywords": ["c.t"]}, "cat", 0),
    ("keywords:forbidden_words", {"forbidden_words": ["rain", "dog"]}, "A cat in a raincoat", 1),
    ("keywords:forbidden_words", {"forbidden_words": ["rain", "dog"]}, "A cat in the Rain.", 0),
    ("keywords:forbidden_words", {"forbidden_words": ["C++"]}, "Use C++ here", 0),
    ("keywords:frequency", {"keyword": " cat", "relation": "at least", "frequency": 2}, "Cats: a cat", 1),
    ("keywords:frequency", {"keyword": "cat", "relation": "at least", "frequency": 3}, "Cats: a cat", 0),
    ("keywords:frequency", {"keyword": "cat", "relation": "less than", "frequency": 3}, "Cats: a cat", 1),
    ("keywords:frequency", {"keyword": "cat", "relation": "less than", "frequency": 2}, "Cats: a cat", 0),
    ("keywords:letter_frequency", {"letter": "A", "let_relation": "at least", "let_frequency": 3}, "a AA", 1),
    ("keywords:letter_frequency", {"letter": "a", "let_relation": "at least", "let_frequency": 4}, "a AA", 0),
    ("keywords:letter_frequency", {"letter": "a", "let_relation": "less than", "let_frequency": 3}, "a AA", 0),
    ("keywords:letter_frequency", {"letter": "#", "let_relation": "at least", "let_frequency": 2}, "#a #b", 1),
    ("keywords:letter_frequency", {"letter": "!", "let_relation": "at least", "let_frequency": 1}, "many letters", 0),
    ("language:response_language", {"language": "fr"}, FRENCH, 1),
    ("language:response_language", {"language": "de"}, FRENCH, 0),
    ("language:response_language", {"language": "de"}, "1 + 1 = 2", 1),
    ("language:response_language", {"language": "zh"}, "今天天气很好，我们去公园散步吧。", 1),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Elm"},
        "One.\n\n'Elm, oak",
        1,
    ),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "elm"},
        "One.\n\nElms",
        0,
    ),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "elm"},
        "One.\n\nElm\n\nOak",
        0,
    ),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "elm"},
        "One.\nElm",
        0,
    ),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "elm"},
        "One.\n\n \n\nElm",
        0,
    ),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 1, "first_word": "one"},
        "One!\n\n\n\nElm",
        1,
    ),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "One\n***\nTwo", 1),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "***\nOne\n***\nTwo\n***", 1),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "One\n\nTwo", 0),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "One\n***\n***\nTwo", 0),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 1}, "One\n***\nTwo", 0),
    ("length_constraints:number_sentences", sentences_asked("at least", 2), "Dr. Lee left at 3.30. Why?", 1),
    ("length_constraints:number_sentences", sentences_asked("at least", 3), "Dr. Lee left at 3.30. Why?", 0),
    ("length_constraints:number_sentences", sentences_asked("less than", 3), "Dr. Lee left at 3.30. Why?", 1),
    ("length_constraints:number_sentences", sentences_asked("less than", 2), "Dr. Lee left at 3.30. Why?", 0),
    ("length_constraints:number_words", {"relation": "at least", "num_words": 4}, "It's well-known", 1),
    ("length_constraints:number_words", {"relation": "at least", "num_words": 5}, "It's well-known", 0),
    ("length_constraints:number_words", {"relation": "less than", "num_words": 5}, "It's well-known", 1),
    ("length_constraints:number_words", {"relation": "less than", "num_words": 4}, "It's well-known", 0),
    ("punctuation:no_comma", {}, "One; two", 1),
    ("punctuation:no_comma", {}, "One, two", 0),
    ("punctuation:no_comma", {}, "一，二", 1),
    ("startend:end_checker", {"end_phrase": "Any questions?"}, 'That is all. any questions?" ', 1),
    ("startend:end_checker", {"end_phrase": "Any questions?"}, "Any questions? Ask.", 0),
    ("startend:quotation", {}, ' "All of it." ', 1),
    ("startend:quotation", {}, '"Some" of it.', 0),
    ("startend:quotation", {}, '"', 0),
    ("startend:quotation", {}, "“All of it.”", 0),
]


@pytest.mark.parametrize(("id_", "kwargs", "response", "followed"), CASES)
def test_a_check(id_, kwargs, response, followed):
    assert strictly(id_, response, **kwargs) is (None if followed is None else bool(followed))


def test_every_check_passes_and_fails_somewhere_above():
    assert {(case[0], case[3]) for case in CASES} >= {(id_, followed) for id_ in CHECKS for followed in (0, 1)}
    assert len(CHECKS) == 25


@pytest.mark.parametrize("id_", CHECKS)
def test_an_empty_answer_follows_nothing(id_):
    for response in ("", " \n "):
        (result,) = check_all([id_], [{}], response)
        assert result == InstructionResult(id_, False, False)


@pytest.mark.parametrize(
    ("id_", "kwargs"),
    [
        ("length_constraints:number_words", {}),
        ("length_constraints:number_words", {"relation": "at least"}),
        ("length_constraints:number_words", {"relation": "at least", "num_words": None}),
        ("length_constraints:number_words", {"relation": "at least", "num_words": -1}),
        ("length_constraints:number_words", {"relation": "at least", "num_words": 1.5}),
        ("length_constraints:number_words", {"relation": "at least", "num_words": float("nan")}),
        ("length_constraints:number_words", {"relation": "at least", "num_words": True}),
        ("length_constraints:number_words", {"relation": "at least", "num_words": 10**30}),
        ("length_constraints:number_words", {"relation": "exactly", "num_words": 1}),
        ("length_constraints:number_words", {"relation": ["at least"], "num_words": 1}),
        ("keywords:existence", {"keywords": []}),
        ("keywords:existence", {"keywords": "cat"}),
        ("keywords:existence", {"keywords": ["cat", 1]}),
        ("keywords:letter_frequency", {"letter": "ab", "let_relation": "at least", "let_frequency": 1}),
        ("keywords:letter_frequency", {"letter": " ", "let_relation": "at least", "let_frequency": 1}),
        ("language:response_language", {"language": "Klingon"}),
        ("length_constraints:nth_paragraph_first_word", {"num_paragraphs": 1, "nth_paragraph": 2, "first_word": "a"}),
        ("startend:end_checker", {"end_phrase": " "}),
        ("startend:no_such_check", {}),
        (["startend:quotation"], {}),
        ("startend:quotation", None),
    ],
)
def test_what_cannot_be_checked_is_neither_right_nor_wrong(id_, kwargs):
    (result,) = check_all([id_], [kwargs], "a")
    assert (result.strict, result.loose) == (None, None)


def test_arguments_that_do_not_belong_to_instructions_decide_nothing():
    ids = ["punctuation:no_comma", "startend:quotation"]
    assert check_all(ids, [{}], "a") == [InstructionResult(id_, None, None) for id_ in ids]


def test_unused_arguments_and_whole_floats_are_accepted():
    """As data sets with one column for all instructions hold them."""
    kwargs = {"relation": "at least", "num_words": 2.0, "keyword": None, "language": None}
    assert strictly("length_constraints:number_words", "two words", **kwargs) is True


def test_loose_forms_of_an_answer():
    assert loose_variants("a\n*b*\nc") == ["a\n*b*\nc", "*b*\nc", "a\n*b*", "*b*", "a\nb\nc", "b\nc", "a\nb", "b"]
    assert loose_variants("a") == ["a"]
    assert loose_variants("**") == ["**"]
    assert loose_variants(" \n") == []


@pytest.mark.parametrize(
    ("id_", "response", "loose"),
    [
        ("startend:quotation", 'Here it is:\n"All of it."', True),
        ("startend:quotation", '"All of it."\nI hope that helps.', True),
        ("startend:quotation", 'Here it is:\n"All of it."\nI hope that helps.', True),
        ("startend:quotation", 'Here\nit is:\n"All of it."', False),
        ("startend:quotation", '*"All of it."*', True),
        ("punctuation:no_comma", "Sure, here it is:\nNo more.", True),
        ("detectable_format:json_format", 'Here:\n{"a": 1}', True),
    ],
)
def test_loosely_followed(id_, response, loose):
    assert check_all([id_], [{}], response) == [InstructionResult(id_, False, loose)]


def test_a_loose_form_may_be_checked_where_the_answer_itself_cannot():
    response = "[" * 100_000 + "\n1"
    assert check_all(["detectable_format:json_format"], [{}], response)[0].loose is True
    assert check_all(["detectable_format:json_format"], [{}], "[" * 100_000)[0].loose is None


NO_COMMA_AND_TWO_WORDS = problem(
    ["punctuation:no_comma", "length_constraints:number_words"], [{}, {"relation": "at least", "num_words": 2}]
)


def test_a_problem_without_an_expected_answer_is_graded_in_a_worker():
    answers = ["two words", "two, words", "one", " ", "x" * 20_000 + " y", "damaged \x0crac{1}{2}"]
    broken = problem(["punctuation:no_comma"], [])
    assert all(
        isinstance(quick_grade(NO_COMMA_AND_TWO_WORDS, text, False), Unsettled) for text in answers if text.strip()
    )
    with GradingPool(1, 60) as pool:
        grades = list(grade_all([*((NO_COMMA_AND_TWO_WORDS, text) for text in answers), (broken, "a")], pool))
        (results,) = pool.map(check_problem, [(NO_COMMA_AND_TWO_WORDS, "two, words")])
    assert [found.correct for found in grades] == [True, False, False, False, True, True, None]
    assert grades[2] == Grade(False, "one", "wrong_answer")
    assert grades[3] == Grade(False, None, "no_answer")
    assert grades[6].reason == "ungraded_gold"
    assert [result.strict for result in results] == [False, True]


def test_the_whole_text_is_the_answer():
    text = "The answer is \\boxed{4}.\n"
    assert grade(problem(["startend:end_checker"], [{"end_phrase": "\\boxed{4}."}]), text) == Grade(True, text, None)


@pytest.mark.parametrize(
    "metadata",
    [{}, {"instruction_ids": None}, {"instruction_ids": []}, {"instruction_ids": ["startend:quotation"], "kwargs": 1}],
)
def test_a_problem_with_damaged_metadata_is_not_graded(metadata):
    assert GRADERS["instructions"](Problem("p", [], None, "instructions", "test", metadata), '"a"') is None


ALL_ARGUMENTS = {
    "capital_frequency": 3,
    "capital_relation": "less than",
    "end_phrase": "Bye.",
    "first_word": "elm",
    "forbidden_words": ["zebra"],
    "frequency": 3,
    "keyword": "zebra",
    "keywords": ["zebra"],
    "language": "de",
    "let_frequency": 3,
    "let_relation": "less than",
    "letter": "q",
    "nth_paragraph": 1,
    "num_bullets": 2,
    "num_highlights": 3,
    "num_paragraphs": 2,
    "num_placeholders": 3,
    "num_sections": 3,
    "num_sentences": 9,
    "num_words": 9,
    "postscript_marker": "P.P.S",
    "prompt_to_repeat": "Say it.",
    "relation": "less than",
    "section_spliter": "Day",
}


def test_the_time_is_linear_in_hostile_texts():
    """Quadratic time would take minutes, and end as `ungraded_timeout`."""
    pieces = ["[", "*", "<<", "\n", ". ", "*\n", "Day ", "a.b@"]
    everything = problem(list(CHECKS), [ALL_ARGUMENTS] * len(CHECKS))
    assert "instructions" not in QUICK
    with GradingPool(1, 30) as pool:
        grades = list(grade_all([(everything, "x" + piece * 300_000) for piece in pieces], pool))
    assert [found.correct for found in grades] == [False] * len(pieces)


@settings(max_examples=200, deadline=None)
@given(
    text=any_text
    | st.lists(st.sampled_from(["*", "\n", ". ", "[", "]", "<<", ">>", '"', "A", "b ", "'S", "Day 1"])).map("".join),
    changed=st.dictionaries(
        st.sampled_from(sorted(ALL_ARGUMENTS)),
        st.none() | st.integers() | st.floats() | any_text | st.lists(any_text | st.integers(), max_size=3),
        max_size=3,
    ),
)
def test_no_answer_and_no_argument_raises(text, changed):
    arguments = {**ALL_ARGUMENTS, **changed}
    for result in check_all(list(CHECKS), [arguments] * len(CHECKS), text):
        assert {type(result.strict), type(result.loose)} <= {bool, type(None)}
        assert not result.strict or result.loose


def test_results_do_not_change_from_call_to_call():
    short = "on it"  # langdetect, which draws at random, is uncertain about it
    found = {strictly("language:response_language", short, language="en") for _ in range(20)}
    assert len(found) == 1


DRAWN = {1122, 1129}
"""Prompts that ask for `#` and `!`. The reference of 2023 counted a letter that it drew at random in their place, anew
for each score: github.com/google-research/google-research/issues/3427. Counted as asked, GPT-4 followed both."""

PUBLISHED = {
    "prompt_strict": 416 / 541,
    "instruction_strict": 697 / 834,
    "prompt_loose": 429 / 541,
    "instruction_loose": 712 / 834,
}
"""GPT-4's 76.89, 83.57, 79.30 and 85.37%, as fractions (arXiv:2311.07911, table 3)."""


def test_gpt_4_scores_as_published():
    """But for the two checks that the reference drew at random, every published count is met exactly."""
    prompts, answers = SHARED_DATA / "ifeval.jsonl", SHARED_DATA / "ifeval_answers_gpt4.jsonl"
    if not prompts.exists() or not answers.exists():
        pytest.skip("the shared data sets are not here")
    with prompts.open() as lines, answers.open() as given_:
        rows = [(json.loads(line), json.loads(answer)["response"]) for line, answer in zip(lines, given_, strict=True)]
    results, drawn_false = [], []
    for row, response in rows:
        found = check_all(row["instruction_id_list"], row["kwargs"], response)
        results.append(found)
        drawn_false.append(
            [
                InstructionResult(one.id, False, False)
                if row["key"] in DRAWN and one.id == "keywords:letter_frequency"
                else one
                for one in found
            ]
        )
    assert (len(results), sum(map(len, results))) == (541, 834)
    ours, lowest = (
        instruction_figures({str(place): [followed] for place, followed in enumerate(several)})
        for several in (results, drawn_false)
    )
    for name, published in PUBLISHED.items():
        assert ours[name].bounds is None, "every instruction could be checked"
        assert lowest[name].value <= published <= ours[name].value
        assert lowest[name].value == pytest.approx(published, abs=0.002)
