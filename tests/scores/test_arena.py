"""ArenaHard's score: weights, swapped games, missing games, intervals and control of style."""

import math
import random

import pytest

from distill.scores.arena import Battle, arena_scores, outcome
from distill.scores.style import Style, style_difference, style_of


def one(battles, **options):
    return arena_scores(battles, **options)["m"]


@pytest.mark.parametrize(
    ("verdict", "plain", "swapped"),
    [
        ("A>>B", (0.0, 3), (1.0, 3)),
        ("A>B", (0.0, 1), (1.0, 1)),
        ("A=B", (0.5, 1), (0.5, 1)),
        ("B>A", (1.0, 1), (0.0, 1)),
        ("B>>A", (1.0, 3), (0.0, 3)),
    ],
)
def test_clear_verdicts_weigh_three_times(verdict, plain, swapped):
    assert outcome(verdict, is_swapped=False) == plain
    assert outcome(verdict, is_swapped=True) == swapped


def test_the_score_is_the_share_of_weighted_wins():
    found = one([Battle("q", "m", "B>>A", "A>B"), Battle("r", "m", "A>>B", "A=B")])
    assert found.score == 100 * (3 + 1 + 0.5) / 8
    assert found.bounds == (found.score, found.score)


def test_a_judge_that_favours_a_place_makes_no_winner():
    assert one([Battle(str(i), "m", "A>B", "A>B") for i in range(10)]).score == 50


def test_a_missing_game_is_neither_a_loss_nor_a_tie():
    found = one([Battle("q", "m", "B>A", None), Battle("r", "m", "B>A", "A>B")])
    assert found.score == 100.0
    assert found.bounds == (50.0, 100.0)
    nothing = one([Battle("q", "m", None, None)])
    assert (nothing.score, nothing.interval_95, nothing.bounds) == (None, None, (0.0, 100.0))
    controlled = one([Battle("q", "m", None, None)], controls_style=True)
    assert controlled.score is None


def mixed(num, model="m"):
    verdicts = ["A>>B", "A>B", "A=B", "B>A", "B>>A"]
    draw = random.Random(model)
    return [Battle(str(i), model, draw.choice(verdicts), draw.choice(verdicts)) for i in range(num)]


def test_the_interval_narrows_with_questions_and_is_seeded():
    few, many = one(mixed(50)), one(mixed(500))
    assert few.interval_95[0] < few.score < few.interval_95[1]
    widths = [high - low for low, high in (few.interval_95, many.interval_95)]
    assert widths[1] < widths[0] / 2
    assert one(mixed(50)) == few
    assert one(list(reversed(mixed(50)))) == few
    assert one(mixed(50), seed=1).interval_95 != few.interval_95


@pytest.mark.parametrize(("game", "swapped", "score"), [("B>A", "A>B", 100), ("A>>B", "B>A", 0)])
def test_a_clean_sweep_has_an_interval(game, swapped, score):
    found = one([Battle(str(i), "m", game, swapped) for i in range(50)])
    low, high = found.interval_95
    assert found.score == score
    assert high - low == pytest.approx(100 * (1 - 0.025 ** (1 / 50)))
    assert low <= score <= high


def test_several_models_are_scored_as_each_alone():
    together = arena_scores([*mixed(40, "a"), *mixed(60, "b")])
    assert together == {"a": arena_scores(mixed(40, "a"))["a"], "b": arena_scores(mixed(60, "b"))["b"]}


def by_length(num, seed=0):
    """Games of a judge that only looks at lengths, between a baseline and a model that writes three times as much."""
    draw = random.Random(seed)
    battles = []
    for i in range(num):
        base, model = Style(draw.randint(400, 1_600), 1, 1, 1), Style(draw.randint(400, 5_000), 1, 1, 1)
        chance = 1 / (1 + math.exp(-4 * style_difference(base, model)[0]))
        wins = [draw.random() < chance for _ in range(2)]
        battles.append(Battle(str(i), "m", "B>A" if wins[0] else "A>B", "A>B" if wins[1] else "B>A", base, model))
    return battles


def test_wins_by_length_alone_are_controlled_for():
    plain, controlled = one(by_length(500)), one(by_length(500), controls_style=True)
    assert plain.score > 70
    assert abs(controlled.score - 50) < 6
    assert controlled.interval_95[0] < controlled.score < controlled.interval_95[1]
    assert (plain.is_style_controlled, controlled.is_style_controlled) == (False, True)


def test_style_that_does_not_vary_changes_little():
    style = Style(100, 0, 0, 0)
    battles = [Battle(b.question, "m", b.game, b.swapped, style, style) for b in mixed(200)]
    assert one(battles, controls_style=True).score == pytest.approx(one(battles).score, abs=0.5)


def test_control_needs_styles():
    with pytest.raises(ValueError, match="styles of both answers to 0"):
        arena_scores(mixed(3), controls_style=True)


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("", (0, 0, 0)),
        ("# A\n## B\n####### no\n#no", (2, 0, 0)),
        ("- a\n* b\n+ c\n1. d\n  23. e\n-no\n1.no", (0, 5, 0)),
        ("**a** and __b__ and ** and **c\nd**", (0, 0, 3)),
        ("```\n# no\n- no\n**no**\n```\n- yes", (0, 1, 0)),
    ],
)
def test_markdown_is_counted_outside_of_code(text, counts):
    assert style_of(text) == (len(text), *counts)


@pytest.mark.parametrize("text", ["*", "_", "`", " ", "\n", "1", "#", "**a", "```a", "- "])
def test_long_answers_are_counted_too(text):
    assert style_of(text * (5_000_000 // len(text))).num_chars == 5_000_000 // len(text) * len(text)


def test_the_difference_of_styles_lies_between_minus_one_and_one():
    assert style_difference(Style(0, 0, 0, 0), Style(99, 0, 1, 0)) == (0.99, 0.0, 0.5, 0.0)
    assert style_difference(Style(99, 0, 1, 0), Style(0, 0, 0, 0)) == (-0.99, 0.0, -0.5, 0.0)
