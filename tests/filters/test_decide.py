"""All that can be said of one problem's traces: each reason, and what the traces say of each other."""

from dataclasses import replace

import pytest

from distill.core.records import Problem
from distill.core.thinking import join_reasoning, split_reasoning
from distill.core.thought_marks import stray_mark
from distill.filters.decide import ProblemNotes, decide, is_for_the_judge
from distill.filters.dedup import content_key, signature
from distill.filters.facts import Facts
from distill.filters.readability import measure
from distill.grading import Grade
from distill.recipe.filter import FilterConfig

RIGHT = Grade(True, "4", None)
WRONG = Grade(False, "5", "wrong_answer")
NOTHING = Grade(False, None, "no_answer")
NO_GOLD = Grade(None, "4", "ungraded_gold")
THOUGHT = "<think>\nTwo and two make four.\n</think>\n\n"
FRENCH = "Nous devons trouver la somme de deux et de deux, puis vérifier que le résultat est juste, et enfin l'écrire. "
PROBLEM = Problem("p", [{"role": "user", "content": "What is 2 + 2?"}], "4", "math", "file:sums.jsonl")
JUDGE = {"model": "judge", "compute": {"base_urls": ["http://localhost:1/v1"]}}


def trace(text=THOUGHT + "\\boxed{4}", finish_reason="stop", opened=False, index=0, num_tokens=10, language="en"):
    """The facts about a trace, as examining it leaves them, its grade aside."""
    split = split_reasoning(text, opened)
    whole = join_reasoning(split.reasoning, split.content)
    return Facts(
        "p",
        index,
        finish_reason,
        "the prompt is too long" if finish_reason == "error" else "",
        num_tokens,
        split.state,
        bool(split.reasoning),
        bool(split.content),
        content_key(split.reasoning, split.content),
        num_tokens,
        measure(split.reasoning, split.content, language),
        signature(whole),
        stray_mark=stray_mark(split.reasoning, split.content),
    )


def decided(facts, problem=PROBLEM, notes=ProblemNotes(), seed=0, **config):  # noqa: B008
    return decide(problem, facts, notes, FilterConfig.model_validate(config), seed)


def reasons_of(facts, **more):
    return [verdict.reasons for verdict in decided(facts, **more)]


@pytest.mark.parametrize(
    ("judged", "grade", "config", "reasons"),
    [
        pytest.param(trace(), RIGHT, {}, (), id="right and readable"),
        pytest.param(trace("", "error"), NOTHING, {}, ("error",), id="the engine's error, and nothing else"),
        # cut off
        pytest.param(
            trace("<think>\nTwo", "length"),
            NOTHING,
            {},
            ("truncated", "unclosed_think", "no_answer"),
            id="cut off in the thought",
        ),
        pytest.param(
            trace(THOUGHT + "It is", "length"), NOTHING, {}, ("truncated", "no_answer"), id="cut in the answer"
        ),
        pytest.param(trace(THOUGHT + "\\boxed{4} and", "length"), RIGHT, {}, ("truncated",), id="cut off though right"),
        # thinking
        pytest.param(trace("\\boxed{4}"), RIGHT, {}, ("no_think",), id="no thought"),
        pytest.param(trace("\\boxed{4}"), RIGHT, {"require_think": False}, (), id="no thought asked for"),
        pytest.param(trace("<think>\n\n</think>\n\n\\boxed{4}"), RIGHT, {}, ("no_think",), id="empty thought"),
        pytest.param(trace("</think>\\boxed{4}"), RIGHT, {}, ("no_think",), id="closed at once"),
        pytest.param(trace(f"Sure! {THOUGHT}4"), RIGHT, {}, ("no_think",), id="text before the thought"),
        pytest.param(trace(""), NOTHING, {}, ("no_think", "empty_answer", "no_answer"), id="nothing at all"),
        pytest.param(trace("<think>\nTwo"), NOTHING, {}, ("unclosed_think", "no_answer"), id="never closed"),
        pytest.param(
            trace("<think>\nTwo"),
            NOTHING,
            {"require_think": False},
            ("unclosed_think", "no_answer"),
            id="never closed, none asked for",
        ),
        # several thoughts
        pytest.param(trace(f"{THOUGHT}No. {THOUGHT}4"), RIGHT, {}, ("several_thinks",), id="a second thought"),
        pytest.param(trace(f"<think>\n{THOUGHT}4"), RIGHT, {}, ("several_thinks",), id="a thought in a thought"),
        pytest.param(
            trace("<think>\nThe tag </think> ends it. Two.\n</think>\n\n4"),
            RIGHT,
            {},
            ("several_thinks",),
            id="a quoted mark",
        ),
        pytest.param(trace(f"{THOUGHT}4 [/THINK]"), RIGHT, {}, ("several_thinks",), id="another model's mark"),
        pytest.param(
            trace(f"{THOUGHT}4 </think>"), RIGHT, {"require_think": False}, ("several_thinks",), id="none asked for"
        ),
        pytest.param(
            trace(f"Sure! {THOUGHT}4"), RIGHT, {"require_think": False}, ("several_thinks",), id="after the answer"
        ),
        pytest.param(
            trace("<think>\nA <think> B", "length"),
            NOTHING,
            {},
            ("truncated", "unclosed_think", "several_thinks", "no_answer"),
            id="in a thought that was cut off",
        ),
        pytest.param(trace("[THINK]Two.[/THINK]4"), RIGHT, {}, (), id="one thought between another model's marks"),
        # a chat template that ends in <think>
        pytest.param(trace("Two.\n</think>\n\n4", opened=True), RIGHT, {}, (), id="opened by the prompt"),
        pytest.param(
            trace("Two and", "length", opened=True),
            NOTHING,
            {},
            ("truncated", "unclosed_think", "no_answer"),
            id="opened by the prompt, cut off",
        ),
        # answers
        pytest.param(trace(THOUGHT), NOTHING, {}, ("empty_answer", "no_answer"), id="empty answer"),
        pytest.param(trace(""), NOTHING, {"require_think": False}, ("empty_answer", "no_answer"), id="empty"),
        pytest.param(trace(THOUGHT + "I do not know."), NOTHING, {}, ("no_answer",), id="no answer"),
        pytest.param(trace(), WRONG, {}, ("wrong_answer",), id="wrong answer"),
        pytest.param(trace(), Grade(None, "4", "ungraded_gold"), {}, ("ungraded_gold",), id="gold not parsed"),
        pytest.param(trace(), Grade(None, "4", "ungraded_timeout"), {}, ("ungraded_timeout",), id="grader hung"),
        pytest.param(trace(), Grade(None, "4", "ungraded_crash"), {}, ("ungraded_crash",), id="grader crashed"),
        # length
        pytest.param(trace(num_tokens=11), RIGHT, {"max_tokens": 10}, ("too_long",), id="too long"),
        pytest.param(trace(num_tokens=10), RIGHT, {"max_tokens": 10}, (), id="just as long"),
        pytest.param(trace(num_tokens=10**6), RIGHT, {}, (), id="no longest"),
        # readability, of the thought as of the answer
        pytest.param(
            trace("<think>Wait. So it is four. " + "Let me check that. " * 20),
            NOTHING,
            {},
            ("unclosed_think", "no_answer", "repetition"),
            id="loop",
        ),
        pytest.param(
            trace(THOUGHT + "Let me check that. " * 20 + "\\boxed{4}"),
            RIGHT,
            {},
            ("repetition",),
            id="a loop that ended",
        ),
        pytest.param(trace(THOUGHT + "Let me check that. " * 9 + "\\boxed{4}"), RIGHT, {}, (), id="a few repeats"),
        pytest.param(
            trace(f"<think>{FRENCH * 3}</think>\\boxed{{4}}"), RIGHT, {}, ("mixed_language",), id="french thought"
        ),
        pytest.param(trace(THOUGHT + "答案是四,这就是结果。"), RIGHT, {}, ("mixed_language",), id="chinese answer"),
        pytest.param(
            trace(f"<think>{FRENCH * 3}</think>\\boxed{{4}}", language="fr"),
            RIGHT,
            {"readability": {"language": "fr"}},
            (),
            id="french",
        ),
        pytest.param(
            trace("<think>\n二加二等于四\n</think>\n\n答案是4", language="zh"),
            RIGHT,
            {"readability": {"language": "zh"}},
            (),
            id="the tags are in no language",
        ),
        # several at once
        pytest.param(
            trace("二加二等于五", num_tokens=11),
            WRONG,
            {"max_tokens": 10},
            ("no_think", "wrong_answer", "too_long", "mixed_language"),
            id="all that can be said",
        ),
    ],
)
def test_one_trace(judged, grade, config, reasons):
    (verdict,) = decided([replace(judged, grade=grade)], **config)
    assert verdict.reasons == reasons
    assert verdict.key == judged.key
    assert verdict.details.keys() <= set(reasons)
    if judged.finish_reason != "error":
        assert (verdict.correct, verdict.extracted_answer) == (grade.correct, grade.extracted_answer)
        assert verdict.graded_by == ("rule" if grade.correct is not None else "")


def test_an_error_says_nothing_about_the_answer():
    (verdict,) = decided([replace(trace("", "error"), grade=NOTHING)])
    assert (verdict.correct, verdict.reasons, verdict.details) == (
        None,
        ("error",),
        {"error": "the prompt is too long"},
    )


def test_what_could_not_be_measured_is_dropped_and_said():
    (verdict,) = decided([replace(trace(), measures=None, signature=None)])
    assert verdict.reasons == ("ungraded_crash", "unmeasured")


WORDS = [
    "first",
    "then",
    "we",
    "add",
    "both",
    "sides",
    "of",
    "it",
    "and",
    "look",
    "at",
    "what",
    "is",
    "left",
    "over",
    "on",
    "each",
    "of",
    "them",
    "before",
    "we",
    "divide",
]


def long_thought(seed, num=200):
    """A readable thought that shares few word pieces with one of another seed."""
    words = [WORDS[(i * i * seed + 7 * i + seed) % len(WORDS)] + str((i * seed) % 97) for i in range(num)]
    return " ".join(words)


def several(*texts, grade=RIGHT, **more):
    return [
        replace(trace(f"<think>{t}</think>\\boxed{{4}}", index=i, **more), grade=grade) for i, t in enumerate(texts)
    ]


def test_of_traces_that_say_the_same_the_first_is_kept():
    one, other = long_thought(3), long_thought(5)
    nearly = one.replace(one.split()[100], "otherwise")
    facts = several(one, other, f"  {one} ", nearly)
    verdicts = decided(facts)
    assert [v.reasons for v in verdicts] == [(), (), ("duplicate",), ("near_duplicate",)]
    assert verdicts[2].details["duplicate"] == "of trace 0"
    assert verdicts[3].details["near_duplicate"].startswith("of trace 0, 9")
    assert reasons_of(facts, duplicates={"traces": None}) == [(), (), ("duplicate",), ()]
    assert reasons_of(facts, duplicates=None) == [(), (), (), ()]


def test_a_bad_trace_makes_no_good_one_a_duplicate():
    facts = several(long_thought(3), long_thought(3))
    facts[0] = replace(facts[0], grade=WRONG)
    assert reasons_of(facts) == [("wrong_answer",), ()]


def test_what_is_known_of_the_problem_drops_all_its_traces():
    facts = several(long_thought(3), long_thought(5))
    notes = ProblemNotes(contamination="aime24 item 7", repeats="a")
    for verdict in decided(facts, notes=notes):
        assert verdict.reasons == ("contaminated", "duplicate_problem")
        assert verdict.details == {"contaminated": "aime24 item 7", "duplicate_problem": "of problem a"}


@pytest.mark.parametrize(
    ("band", "kept"),
    [({}, True), ({"max_pass_rate": 0.5}, False), ({"min_pass_rate": 0.7}, False), ({"min_pass_rate": 0.6}, True)],
)
def test_the_pass_rate_counts_all_graded_traces_the_dropped_ones_too(band, kept):
    facts = several(long_thought(3), long_thought(5), long_thought(7), long_thought(11))
    facts[2] = replace(facts[2], grade=WRONG)
    facts[3] = replace(facts[3], grade=NO_GOLD)
    verdicts = decided(facts, select=band)
    assert verdicts[0].kept is verdicts[1].kept is kept
    if not kept:
        assert verdicts[0].reasons == ("pass_rate",)
        assert verdicts[0].details["pass_rate"].startswith("67% right")


@pytest.mark.parametrize(("policy", "first"), [("shortest", 1), ("longest", 2)])
def test_only_good_traces_compete_for_a_problems_share(policy, first):
    facts = several(*(long_thought(seed) for seed in (3, 5, 7, 11)))
    facts = [replace(one, num_tokens=num) for one, num in zip(facts, (20, 10, 30, 5), strict=True)]
    facts[3] = replace(facts[3], grade=WRONG)
    found = reasons_of(facts, select={"per_problem": 1, "policy": policy})
    assert [i for i, reasons in enumerate(found) if not reasons] == [first]
    assert found[3] == ("wrong_answer",)


def answering(*answers, gold=None):
    """Traces that give these answers, graded against no or another gold answer."""
    graded = [Grade(None, a, "ungraded_gold") if gold is None else Grade(a == gold, a, "wrong_answer") for a in answers]
    return [
        replace(one, grade=g)
        for one, g in zip(several(*map(long_thought, range(2, 2 + len(answers)))), graded, strict=True)
    ]


def test_most_traces_agree_where_no_answer_is_known():
    problem = replace(PROBLEM, answer=None)
    verdicts = decided(answering("4", "4.0", "5", "4"), problem=problem, majority={"min_votes": 4, "min_share": 0.6})
    assert [v.correct for v in verdicts] == [True, True, False, True]
    assert {v.graded_by for v in verdicts} == {"majority"}
    assert verdicts[0].details == {"majority": "3 of 4 say 4"}
    assert verdicts[2].reasons == ("wrong_answer",)
    without = decided(answering("4", "4", "5", "4"), problem=problem)
    assert {v.reasons for v in without} == {("ungraded_gold",)}
    few = decided(answering("4", "4", "4"), problem=problem, majority={"min_votes": 4})
    assert {v.reasons for v in few} == {("ungraded_gold",)}


def test_a_doubted_answer_gives_way_only_where_that_is_wanted_and_nobody_found_it():
    facts = answering("5", "5", "5", "5", gold="4")
    assert {v.correct for v in decided(facts, majority={"min_votes": 4})} == {False}
    assert {v.correct for v in decided(facts, majority={"min_votes": 4, "doubted": True})} == {True}
    found_once = answering("5", "5", "5", "5", "4", gold="4")
    assert [v.correct for v in decided(found_once, majority={"min_votes": 4, "doubted": True})] == [False] * 4 + [True]


def test_a_judge_fills_in_and_vetoes_and_never_overrules():
    graded = [NO_GOLD, NO_GOLD, NO_GOLD, WRONG, RIGHT, RIGHT]
    facts = [replace(one, grade=g) for one, g in zip(several(*map(long_thought, range(2, 8))), graded, strict=True)]
    said = [True, False, None, True, False, True]
    notes = ProblemNotes(judged={one.key: word for one, word in zip(facts, said, strict=True)})
    verdicts = decided(facts, notes=notes, judge={**JUDGE, "role": "both"})
    assert [(v.correct, v.reasons, v.graded_by) for v in verdicts] == [
        (True, (), "judge"),
        (False, ("wrong_answer",), "judge"),
        (None, ("ungraded_gold", "ungraded_judge"), ""),
        (False, ("wrong_answer",), "rule"),
        (True, ("judge_veto",), "rule"),
        (True, (), "rule"),
    ]


@pytest.mark.parametrize(
    ("role", "asked"), [("fill", [True, False, False]), ("veto", [False, False, True]), ("both", [True, False, True])]
)
def test_a_judge_is_asked_about_what_is_its_to_say(role, asked):
    one = trace()
    assert [is_for_the_judge(replace(one, grade=g), role) for g in (NO_GOLD, WRONG, RIGHT)] == asked
    assert not is_for_the_judge(replace(one, grade=NO_GOLD, finish_reason="length"), role)


def test_a_scorer_is_not_overruled_by_a_vote():
    problem = replace(PROBLEM, answer=None, task="gym")
    graded = [Grade(False, "a", "wrong_answer")] * 3 + [Grade(True, "b", None)]
    facts = [replace(one, grade=g) for one, g in zip(several(*map(long_thought, range(2, 6))), graded, strict=True)]
    assert [v.correct for v in decided(facts, problem=problem, majority={"min_votes": 4})] == [False] * 3 + [True]


def test_an_answer_that_only_a_parser_could_tell_apart_is_not_called_wrong():
    problem = replace(PROBLEM, answer=None)
    verdicts = decided(
        answering("2\\sqrt{2}", "2\\sqrt{2}", "2\\sqrt{2}", "\\sqrt{8}"), problem=problem, majority={"min_votes": 4}
    )
    assert [v.correct for v in verdicts] == [True, True, True, None]
    assert verdicts[3].reasons == ("ungraded_gold",)


@pytest.mark.parametrize(
    ("answer", "grade", "unanswered", "reasons"),
    [
        (None, NO_GOLD, "drop", ("ungraded_gold",)),
        (None, NO_GOLD, "keep", ()),
        ("4?!", NO_GOLD, "keep", ("ungraded_gold",)),  # there is an answer, which nobody could read
        (None, NOTHING, "keep", ("no_answer",)),
    ],
)
def test_traces_without_an_expected_answer_are_kept_unproven_only_where_asked(answer, grade, unanswered, reasons):
    facts = replace(trace(), grade=grade)
    config = FilterConfig(unanswered=unanswered)
    (verdict,) = decide(replace(PROBLEM, answer=answer), [facts], ProblemNotes(), config, 0)
    assert (verdict.reasons, verdict.correct) == (reasons, grade.correct)


def test_texts_that_need_no_thought_and_are_kept_unproven_need_no_final_answer_either():
    facts = replace(trace(), grade=NOTHING)
    config = FilterConfig(unanswered="keep", require_think=False)
    (verdict,) = decide(replace(PROBLEM, answer=None), [facts], ProblemNotes(), config, 0)
    assert (verdict.reasons, verdict.correct, verdict.graded_by) == ((), None, "")
    (verdict,) = decide(PROBLEM, [facts], ProblemNotes(), config, 0)
    assert verdict.reasons == ("no_answer",)


CODE = Problem("p", [{"role": "user", "content": "Add."}], None, "code", "file:sums.jsonl")
PROGRAM = THOUGHT + "```python\nprint(4)\n```"


def program(index, outputs, correct=None):
    """The facts about a program that gives some outputs on the tests' inputs."""
    reason = {True: None, False: "wrong_answer", None: "ungraded_gold"}[correct]
    details = {"outputs": outputs} if outputs else {}
    return replace(trace(PROGRAM, index=index), grade=Grade(correct, "print(4)\n", reason, details))


def test_a_program_in_a_block_is_no_reason_to_drop_it():
    right = Grade(True, "print(4)\n", None, {"tests_passed": "3 of 3", "outputs": "4f"})
    (verdict,) = decided([replace(trace(PROGRAM), grade=right)], problem=CODE)
    assert (verdict.reasons, verdict.details) == ((), right.details)
    (other,) = decided([replace(trace(PROGRAM), grade=right)])
    assert other.reasons == ("code_block",)


def test_the_failing_test_of_a_program_is_in_its_verdict():
    told = {"tests_passed": "0 of 3", "wrong_answer": "test 1 of 3: time limit"}
    wrong = Grade(False, "print(4)\n", "wrong_answer", told)
    (verdict,) = decided([replace(trace(PROGRAM), grade=wrong)], problem=CODE)
    assert (verdict.reasons, verdict.details) == (("wrong_answer",), wrong.details)


def test_programs_vote_by_what_they_give_on_the_tests_inputs():
    facts = [program(0, "a1"), program(1, "a1"), program(2, "b2"), program(3, "a1"), program(4, "")]
    voting = {"min_votes": 4, "min_share": 0.6}
    verdicts = decided(facts, problem=CODE, majority=voting, duplicates=None)
    assert [verdict.correct for verdict in verdicts] == [True, True, False, True, False]
    assert {verdict.graded_by for verdict in verdicts} == {"majority"}
    assert verdicts[0].details["majority"] == "3 of 4 give the same outputs"
    undecided = decided(facts[1:4], problem=CODE, majority=voting, duplicates=None)
    assert [verdict.reasons for verdict in undecided] == [("ungraded_gold",)] * 3


def test_a_program_that_fails_otherwise_leaves_the_vote_to_the_others():
    facts = [program(index, "a1") for index in range(4)]
    voting = {"min_votes": 4, "min_share": 0.6}
    crashed = replace(program(4, "", correct=False), grade=Grade(False, "1/0", "wrong_answer", {"wrong_answer": "it"}))
    none = replace(program(5, ""), grade=Grade(False, None, "no_answer"))
    known_wrong = [program(index, "c3", correct=False) for index in range(6, 16)]
    verdicts = decided([*facts, crashed, none, *known_wrong], problem=CODE, majority=voting, duplicates=None)
    assert [verdict.correct for verdict in verdicts] == [True] * 4 + [False] * 12
    assert verdicts[0].details["majority"] == "4 of 4 give the same outputs"
    assert verdicts[4].details["wrong_answer"] == "it"


def test_tests_are_doubted_only_if_no_program_passes_them():
    facts = [program(index, "a1", correct=False) for index in range(4)]
    voting = {"min_votes": 4, "doubted": True}
    assert all(v.correct for v in decided(facts, problem=CODE, majority=voting, duplicates=None))
    facts[3] = program(3, "b2", correct=True)
    assert [v.correct for v in decided(facts, problem=CODE, majority=voting, duplicates=None)] == [False] * 3 + [True]
