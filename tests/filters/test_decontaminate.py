"""Which training problems repeat an evaluation item, and the certificate that says so."""

import json
import pickle
import random
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from distill.filters.decontaminate import Decontaminator, certificate
from distill.sources.evaluation_sets import make_pack
from distill.sources.math_words import tokens

SHARED_DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
LONG = "Find the number of positive divisors of $2^{10}\\cdot 3$ that are not divisible by $\\dfrac{12}{2}$ at all."
SHORT = {
    "sum": "What is $3 + 4$?",
    "root": "Simplify $\\sqrt{242}$.",
    "cube": "How many vertices does a cube have?",
    "tangent": "Compute $\\tan 60^\\circ$",
    "five": "5",
}
PACK = make_pack("short", SHORT.items())
OTHER = make_pack("long", [("7", LONG)])
SETS = Decontaminator([PACK, OTHER])
PROPERTY = {"max_examples": 150, "deadline": None, "derandomize": True}


def found(text, decontaminator=SETS):
    return [(hit.item_id, hit.kind) for hit in decontaminator.hits(text)]


def evaluation_texts():
    """Items of real evaluation sets by name."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the shared data sets are not here")
    sets = {"math500": json.loads((SHARED_DATA / "math500.json").read_text())}
    for name in ("aime24", "aime25", "gsm8k_test"):
        sets[name] = [json.loads(line) for line in (SHARED_DATA / f"{name}.jsonl").read_text().splitlines()]
    return {name: [row.get("problem") or row["question"] for row in rows] for name, rows in sets.items()}


# --- pieces of 8 words


def test_eight_words_in_a_row_name_the_item():
    (hit,) = SETS.hits("She said: positive divisors of $2^{10} × 3$ that are not lucky.")
    assert hit.set_name == "long"
    assert (hit.item_id, hit.kind) == ("7", "ngram")
    assert hit.matched == "positive divisors of 2 ^ 10 * 3 that are not"


def test_seven_words_in_a_row_are_too_few():
    assert found("the number of positive divisors of $2^{10}\\cdot 2$") == []


def test_typesetting_hides_no_piece():
    assert found("NOT DIVISIBLE BY \\( \\frac{12} 2\\) at all, my friend") == []
    assert found("x 3 that are NOT\ndivisible,  by \\( \\tfrac{12}2 \\)  at y") == [("7", "ngram")]


def test_the_whole_of_a_long_item_is_an_exact_hit():
    assert found(LONG.upper().replace("\\DFRAC", "\\frac").replace("\\CDOT", "\\cdot")) == [("7", "exact")]


def test_a_piece_with_few_tokens_must_stand_there_letter_by_letter():
    sets = Decontaminator([make_pack("e", [("0", "Let $A$ , $B$ , $C$ , $D$ , be points.")])])
    assert found("Take points A, B, C, D on a line", sets) == []
    assert found("x $a$ , $B$ , $C$ , $D$ , z", sets) == [("0", "ngram")]


def test_pieces_do_not_reach_from_one_text_into_the_next():
    words = LONG.split()
    halves = [" ".join(words[:6]), " ".join(words[6:12])]
    assert list(SETS.hits_of_all(halves)) == [[], []]
    assert found(" ".join(halves)) == [("7", "ngram")]


@settings(**PROPERTY)
@given(data=st.data())
def test_no_planted_piece_is_missed_whatever_the_item_is_made_of(data):
    pieces = st.sampled_from([*"ab12$\\{}^,.-!&é²½—Ж\ud800", "\\frac", "\\left", ",000", "{,}", "frac"])
    word = st.lists(pieces, min_size=1, max_size=5).map("".join)
    items = data.draw(st.lists(st.lists(word, min_size=8, max_size=14).map(" ".join), min_size=1, max_size=4))
    keyed = [(str(i), text + " end") for i, text in enumerate(items)]
    sets = Decontaminator([make_pack("e", keyed)])
    item = data.draw(st.sampled_from(keyed))[1].split()
    start = data.draw(st.integers(0, len(item) - 8))
    piece = " ".join(item[start : start + 8])
    assume(len(tokens(piece)) > 1)  # eight words without two tokens say nothing
    around = data.draw(st.tuples(word, word))
    assert sets.hits(f"{around[0]} {piece} {around[1]}")


def test_no_piece_of_real_evaluation_sets_is_missed():
    dice = random.Random(0)
    sets = evaluation_texts()
    decontaminator = Decontaminator([make_pack(name, enumerate_ids(texts)) for name, texts in sets.items()])
    for name, texts in sets.items():
        planted = []
        for text in texts:
            words = text.split()
            start = dice.randrange(max(1, len(words) - 7))
            planted.append("Before it " + " ".join(words[start : start + 8]) + " and after.")
        missed = [
            text
            for i, (text, hits) in enumerate(zip(planted, decontaminator.hits_of_all(planted), strict=True))
            if not any(hit.set_name == name and same_piece(texts, hit.item_id, i) for hit in hits)
        ]
        assert missed == []


def same_piece(texts, item_id, planted):
    """Items that repeat each other may stand in for each other."""
    return int(item_id) == planted or len(set(texts[int(item_id)].split()) & set(texts[planted].split())) > 3


def enumerate_ids(texts):
    return [(str(i), text) for i, text in enumerate(texts)]


# --- short items


@pytest.mark.parametrize(
    ("text", "item"),
    [
        ("what is 3+4", "sum"),
        ("What is $3+4$?\nReason step by step.", "sum"),
        ("lorem ipsum What is 3 + 4? dolor", "sum"),
        ("Please simplify √242, then stop.", "root"),
        ("Compute \\tan(60°).", "tangent"),
        (" 5\n", "five"),
    ],
)
def test_a_whole_short_item_is_found_inside_other_text(text, item):
    assert found(text) == [(item, "exact")]


@pytest.mark.parametrize(
    "text",
    ["What is 3 + 5?", "What is 13 + 4?", "What is 3 + 4 + 5?", "What is 3 + 4x?", "What is 3 - 4?", "Simplify √243.",
     "Compute \\sin 60^\\circ", "How many edges does a cube have?", "How many vertices does no cube have?",
     "Take 5 of 6"],
)  # fmt: skip
def test_a_short_item_with_other_numbers_or_more_of_them_is_another(text):
    assert found(text) == []


@pytest.mark.parametrize(
    ("text", "item"),
    [
        ("Compute 3 + 4.", "sum"),
        ("Find the value of 3+4", "sum"),
        ("How many vertises does the cube have", "cube"),
        ("How many vertices does a big cube have?", "cube"),
        ("Hello!\nCalculate 3 + 4\nThink first.", "sum"),
    ],
)
def test_a_short_item_with_a_small_edit_is_found(text, item):
    assert found(text) == [(item, "fuzzy")]


# --- the whole


def test_many_texts_give_what_each_gives_alone():
    dice = random.Random(1)
    texts = [dice.choice([LONG, *SHORT.values(), "", "nothing", "\ud800\0", "a\nb\n"]) for _ in range(300)]
    assert list(SETS.hits_of_all(texts)) == [SETS.hits(text) for text in texts]


@settings(**PROPERTY)
@given(text=st.text(max_size=80))
def test_any_text_can_be_looked_up(text):
    assert SETS.hits(text) == SETS.hits(text)


def test_it_pickles_as_its_packs():
    pickled = pickle.dumps(SETS)
    assert len(pickled) < 2_000
    assert pickle.loads(pickled).hits(LONG) == SETS.hits(LONG)


def test_nothing_is_found_in_nothing():
    assert Decontaminator([]).hits(LONG) == []
    assert list(SETS.hits_of_all([])) == []


@pytest.mark.parametrize("unit", ["A", "$A$ , ", "what is 3 + 4 + ", "\\frac", "1,", "²", "3 + 4\n", "-a", "2^{10} "])
def test_hostile_texts_of_megabytes_are_looked_up(unit):
    SETS.hits(unit * (1_000_000 // len(unit)))


def test_the_certificate_counts_and_names_what_was_found():
    texts = {"b": LONG, "a": "What is 3 + 4? " + LONG, "c": "What is 3 + 4?", "d": "nothing"}
    search = SETS.search()
    search.add(texts.values())
    found = json.loads(json.dumps(certificate(SETS.packs, list(texts), search.finish())))
    assert (found["schema_version"], found["num_problems_checked"], found["num_problems_removed"]) == (1, 4, 3)
    assert found["method"]["ngram_words"] == 8
    short, long = found["sets"]
    assert (short["name"], short["num_items"], short["sha256"]) == ("short", 5, PACK.sha256)
    assert (short["num_problems_removed"], short["num_items_hit"]) == (2, 1)
    assert short["num_hits"] == {"exact": 2, "ngram": 0, "fuzzy": 0}
    assert long["num_hits"] == {"exact": 1, "ngram": 1, "fuzzy": 0}
    assert list(found["hits"]) == ["a", "b", "c"]
    assert found["hits"]["c"] == [{"set": "short", "item": "sum", "kind": "exact", "matched": "what is 3 + 4"}]
