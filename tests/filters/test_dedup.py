"""Equal texts by their hash, nearly equal ones by their signatures."""

import hashlib
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.filters.dedup import (
    MAX_MISSED,
    MAX_PAIRWISE,
    NUM_SLOTS,
    SIGNATURE_BYTES,
    as_matrix,
    content_key,
    near_duplicate_texts,
    near_duplicates,
    number_key,
    numbers_of,
    rows_per_band,
    signature,
    signatures,
    similarity,
)
from distill.filters.shingles import jaccard, shingles

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "data"
VOCABULARY = [f"word{n}" for n in range(2_000)]
texts = st.text() | st.text(st.characters(), max_size=40)


def prose(seed, num_words=300):
    return random.Random(seed).choices(VOCABULARY, k=num_words)


def edited(words, seed, num_edits):
    """The words with some of them replaced."""
    dice = random.Random(seed)
    words = list(words)
    for place in dice.sample(range(len(words)), num_edits):
        words[place] = f"new{dice.randrange(10**6)}"
    return words


def planted(num, num_edits, every=3, num_words=300):
    """Texts of which each `every`-th is followed by an edited copy, and {copy: original}."""
    found, copies = [], {}
    for seed in range(num):
        words = prose(seed, num_words)
        found.append(" ".join(words))
        if seed % every == 0:
            copies[len(found)] = len(found) - 1
            found.append(" ".join(edited(words, -seed, num_edits)))
    return found, copies


def test_a_content_key_is_blind_to_spaces_alone():
    assert content_key(" a  b\n\tc ") == content_key("a b c")
    assert len({content_key(text) for text in ("a b c", "ab c", "a b C", "a b c.", "")}) == 5


@settings(deadline=None)
@given(st.lists(texts, max_size=4), st.lists(texts, max_size=4))
def test_content_keys_are_equal_where_all_texts_are(left, right):
    folded = [[" ".join(text.split()) for text in each] for each in (left, right)]
    assert (content_key(*left) == content_key(*right)) == (folded[0] == folded[1])


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("Ann has 3 apples and 12.5 pears.", ("3", "12.5")),
        ("1,000 and 1{,}000 and 1000", ("1000", "1000", "1000")),
        (r"1\,000", ("1000",)),
        ("the point (1,2)", ("1", "2")),
        ("f(-3) - 4", ("-3", "4")),
        ("x\N{MINUS SIGN}5 = \N{MINUS SIGN}5", ("5", "-5")),
        ("7-3", ("7", "3")),
        ("Three of twenty hens, half of them twice", ("3", "20", "half", "twice")),
        ("someone, often, weight", ()),
        ("x² and 10³", ("²", "10", "³")),
        (r"\frac{1}{2} of 30%", ("1", "2", "30")),
        ("", ()),
    ],
)
def test_numbers_of_a_text(text, numbers):
    assert numbers_of(text) == numbers


def test_number_keys_tell_how_numbers_are_split():
    assert number_key("1 and 23") != number_key("12 and 3")
    assert number_key("1 and 23 hens") == number_key("one or 23 cows")


@pytest.mark.parametrize(
    "text", ["1" * 5_000_000, "1," * 2_500_000, "111," * 1_200_000, "-" * 5_000_000, "seven" * 10**6]
)
def test_numbers_of_hostile_texts(text):
    assert len(numbers_of(text)) <= len(text)


@settings(deadline=None)
@given(texts)
def test_a_signature_has_its_size_and_is_like_itself(text):
    found = signature(text)
    assert len(found) == SIGNATURE_BYTES
    assert similarity(found, found) == 1
    assert found == signature(text)


@settings(deadline=None)
@given(st.lists(texts, min_size=1, max_size=6))
def test_signatures_do_not_depend_on_what_else_is_signed(many):
    assert [row.tobytes() for row in signatures(many)] == [signature(text) for text in many]


def test_many_batches_are_signed_as_one_by_one():
    many = [" ".join(prose(seed, 40)) for seed in range(1_200)] + ["x " * 300_000, "last"]
    found = signatures(many)
    assert found.shape == (len(many), NUM_SLOTS)
    assert all(found[row].tobytes() == signature(many[row]) for row in (0, 777, 1_199, 1_200, 1_201))


def test_nothing_to_sign():
    assert signatures([]).shape == (0, NUM_SLOTS)
    assert near_duplicates([], 0.9) == {}


def test_signatures_are_the_same_in_another_process():
    text = "Find $x^2 + 1$; ’tis √2 − 漢字 \ud800\x00 " * 20
    script = f"from distill.filters.dedup import signature; print(signature({text!r}).hex())"
    environment = {**os.environ, "PYTHONHASHSEED": "12345", "PYTHONPATH": str(ROOT), "RAYON_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, cwd=ROOT)
    assert done.stdout.strip() == signature(text).hex(), done.stderr


def test_this_version_of_signatures_is_the_one_in_caches():
    """A change here makes stored signatures worthless: raise SIGNATURE_VERSION with it."""
    found = signature("How many of the 12 eggs, at $3 each, are left? Find $x^2 - 1$.") + signature("")
    assert hashlib.sha256(found).hexdigest() == ("d2595fde2b51a6441b21b488f90c01a3b0f3ec05d0d1159e9c70209917f52e41")


@pytest.mark.parametrize("num_edits", [0, 2, 5, 15, 40, 300])
def test_the_estimate_is_near_the_exact_similarity(num_edits):
    errors = []
    for seed in range(20):
        words = prose(seed, 400)
        left, right = " ".join(words), " ".join(edited(words, seed, num_edits))
        errors.append(similarity(signature(left), signature(right)) - jaccard(shingles(left), shingles(right)))
    assert max(map(abs, errors)) < 5 * (0.25 / NUM_SLOTS) ** 0.5
    assert abs(float(np.mean(errors))) < 3 * (0.25 / NUM_SLOTS / len(errors)) ** 0.5


def test_no_piece_of_a_long_text_is_left_out():
    words = prose(1, 20_000)
    late = [*words[:-2_000], *prose(2, 2_000)]
    exact = jaccard(shingles(" ".join(words)), shingles(" ".join(late)))
    assert similarity(signature(" ".join(words)), signature(" ".join(late))) == pytest.approx(exact, abs=0.1)


def test_reordered_sentences_stay_alike():
    sentences = [" ".join(prose(seed, 60)) + "." for seed in range(10)]
    assert similarity(signature(" ".join(sentences)), signature(" ".join(sentences[::-1]))) > 0.8


def test_the_first_is_kept_and_later_ones_name_it():
    found, copies = planted(30, 2)
    assert near_duplicates(signatures(found), 0.9) == copies


def test_bytes_and_matrix_say_the_same():
    found, copies = planted(12, 2)
    assert near_duplicates([signature(text) for text in found], 0.9) == copies


def test_a_chain_of_small_changes_does_not_join_its_ends():
    words = prose(7)
    chain = [words]
    for step in range(4):
        chain.append(edited(chain[-1], step, 7))
    found = signatures([" ".join(each) for each in chain])
    repeated = near_duplicates(found, 0.7)
    assert all((found[index] == found[earlier]).mean() >= 0.7 for index, earlier in repeated.items())
    assert 1 in repeated
    assert 4 not in repeated or repeated[4] != 0


def test_of_several_the_earliest_is_named():
    words = prose(3)
    both = [words, edited(words, 1, 20), edited(words, 1, 10)]
    found = signatures([" ".join(each) for each in both])
    assert near_duplicates(found, 0.99) == {}
    assert near_duplicates(found, 0.4)[2] == 0


def test_problems_that_differ_in_their_numbers_alone_are_no_duplicates():
    story = " ".join(prose(5, 200))
    problems = [
        f"{story} How much do 12 eggs cost?",
        f"{story} How much do 13 eggs cost?",
        f"{story} What do 12 eggs cost?",
    ]
    found = signatures(problems)
    assert near_duplicates(found, 0.9) == {1: 0, 2: 0}
    assert near_duplicates(found, 0.9, keys=[number_key(text) for text in problems]) == {2: 0}


def test_verify_has_the_last_word():
    found, copies = planted(20, 4)
    pieces = [shingles(text) for text in found]
    exact = {c for c, o in copies.items() if jaccard(pieces[o], pieces[c]) >= 0.87}
    asked = []

    def verify(earlier, later):
        asked.append((earlier, later))
        return jaccard(pieces[earlier], pieces[later]) >= 0.87

    assert set(near_duplicates(signatures(found), 0.87, verify=verify)) == exact
    assert asked
    assert all(earlier < later for earlier, later in asked)
    assert near_duplicates(signatures(found), 0.87, verify=lambda earlier, later: False) == {}


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.8, 0.9, 0.95, 1.0])
def test_banding_finds_what_comparing_all_pairs_finds(threshold):
    found, copies = planted(3 * MAX_PAIRWISE, 0 if threshold == 1 else 1, num_words=250)
    assert len(found) > MAX_PAIRWISE
    near = [(c, o) for c, o in copies.items() if jaccard(shingles(found[c]), shingles(found[o])) >= threshold + 0.02]
    matrix = signatures(found)
    repeated = near_duplicates(matrix, threshold)
    close = {c: o for c, o in copies.items() if (matrix[c] == matrix[o]).mean() >= threshold}
    assert repeated.items() <= close.items()
    assert len(repeated) >= 0.97 * len(close)
    assert len(near) == 0 or len(repeated) >= 0.9 * len(near)


@pytest.mark.parametrize("num", [40, MAX_PAIRWISE])
def test_texts_at_hand_are_compared_exactly(num):
    found, copies = planted(num, 4, every=2)
    pieces = [shingles(text) for text in found]
    exact = {c: o for c, o in copies.items() if jaccard(pieces[o], pieces[c]) >= 0.87}
    assert len(exact) > 0
    repeated = near_duplicate_texts(found, 0.87)
    assert repeated.items() <= exact.items()
    assert len(repeated) >= 0.97 * len(exact)
    assert near_duplicate_texts(found, 0.87, keys=range(len(found))) == {}


def test_banding_heeds_keys_and_verify_too():
    found, copies = planted(3 * MAX_PAIRWISE, 1)
    matrix = signatures(found)
    assert near_duplicates(matrix, 0.9, keys=range(len(found))) == {}
    assert near_duplicates(matrix, 0.9, keys=[7] * len(found)) == near_duplicates(matrix, 0.9)
    odd = {c: o for c, o in copies.items() if c % 2}
    assert near_duplicates(matrix, 0.9, verify=lambda earlier, later: later % 2 == 1).items() <= odd.items()


def test_equal_texts_are_compared_with_the_first_alone():
    matrix = np.repeat(signatures(["the same text for all of them"]), 20_000, axis=0)
    assert near_duplicates(matrix, 0.9) == dict.fromkeys(range(1, 20_000), 0)


def test_a_crowd_just_below_the_threshold_is_not_compared_with_itself():
    """All share most bands and none repeats another: comparisons stay bounded, and equal ones are still found."""
    dice = np.random.default_rng(0)
    crowd = np.repeat(dice.integers(0, 1 << 16, (1, NUM_SLOTS), dtype=np.uint16), 3_000, axis=0)
    crowd[:, :60] = dice.integers(0, 1 << 16, (3_000, 60), dtype=np.uint16)
    crowd[100] = crowd[50]
    assert near_duplicates(crowd, 0.9) == {100: 50}


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.8, 0.85, 0.9, 0.95, 1.0])
def test_bands_miss_no_more_than_they_may(threshold):
    rows = rows_per_band(threshold)
    assert (1 - threshold**rows) ** (NUM_SLOTS // rows) <= MAX_MISSED
    assert rows == NUM_SLOTS or (1 - threshold ** (rows + 1)) ** (NUM_SLOTS // (rows + 1)) > MAX_MISSED


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan")])
def test_an_impossible_threshold_is_refused(threshold):
    with pytest.raises(ValueError, match="threshold"):
        near_duplicates([signature("a")], threshold)


def test_other_signatures_are_refused():
    for wrong in (b"", b"short", bytes(SIGNATURE_BYTES + 2)):
        with pytest.raises(ValueError, match="Compute the signatures again"):
            as_matrix([signature("a"), wrong])


def test_a_key_for_each_is_asked_for():
    with pytest.raises(ValueError, match="1 keys for 2"):
        near_duplicates([signature("a"), signature("b")], 0.9, keys=[1])


@pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared/data")
def test_real_problems_are_rarely_called_duplicates():
    rows = json.loads((SHARED / "math_train.json").read_text(encoding="utf-8"))
    problems = [row["problem"] for row in rows][:3_000]
    repeated = near_duplicates(signatures(problems), 0.9, keys=[number_key(text) for text in problems])
    assert len(repeated) < 30
    assert all(jaccard(shingles(problems[c]), shingles(problems[o])) > 0.75 for c, o in repeated.items())
