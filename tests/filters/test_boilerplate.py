"""Common pieces are set aside; a problem that repeats an item is not."""

import random

from distill.filters.boilerplate import MIN_COMMON_PROBLEMS
from distill.filters.decontaminate import Decontaminator, certificate
from distill.sources.evaluation_sets import make_pack

CLOSING = "where $m$ and $n$ are relatively prime positive integers. Find $m+n$."
dice = random.Random(3)
WORDS = ["river", "stone", "copper", "lantern", "meadow", "north", "barrel", "circle", "train", "apple", "tower"]


def story(num_words=40):
    return " ".join(dice.choices(WORDS, k=num_words))


ITEMS = [f"{story()} The ratio is $m/n$ {CLOSING}" for _ in range(3)]
SETS = Decontaminator([make_pack("exam", [(str(number), item) for number, item in enumerate(ITEMS)])])


def search(texts):
    found = SETS.search()
    found.add(texts)
    return found.finish()


def strangers(number):
    return [f"{story()} The area is $m/n$ {CLOSING}" for _ in range(number)]


def test_a_closing_phrase_of_many_problems_names_no_item():
    found = search(strangers(MIN_COMMON_PROBLEMS))
    assert found.hits == {}
    assert found.num_passed == MIN_COMMON_PROBLEMS
    told = {piece.text: piece for piece in found.common}
    assert told["m and n are relatively prime positive integers"][1:] == (MIN_COMMON_PROBLEMS, len(ITEMS))


def test_in_a_few_problems_the_same_phrase_counts():
    found = search(strangers(MIN_COMMON_PROBLEMS - 1))
    assert len(found.hits) == MIN_COMMON_PROBLEMS - 1
    assert (found.common, found.num_passed) == ([], 0)


def test_the_order_and_the_batches_of_the_problems_make_no_difference():
    texts = [*strangers(8), ITEMS[0], ITEMS[1][:90]]
    together = search(texts)
    apart = SETS.search()
    for text in reversed(texts):
        apart.add([text])
    last = len(texts) - 1
    assert {last - number: hits for number, hits in apart.finish().hits.items()} == together.hits
    assert sorted(together.hits) == [8, 9]


def test_copies_of_an_item_are_found_however_many_there_are():
    copies = [f"{ITEMS[0]} Hint {number}." for number in range(20)]
    assert sorted(search(strangers(30) + copies).hits) == list(range(30, 50))


def test_a_piece_of_an_item_among_common_ones_is_found():
    words = ITEMS[1].split()
    planted = [f"{story()} {' '.join(words[at : at + 8])} {story()} is $m/n$ {CLOSING}" for at in range(0, 30, 8)]
    found = search(strangers(30) + planted)
    assert sorted(found.hits) == [30, 31, 32, 33]
    assert all("relatively prime" not in hit.matched for hits in found.hits.values() for hit in hits)


def test_half_an_item_in_many_copies_is_found():
    half = " ".join(ITEMS[2].split()[:25])
    copies = [f"{half} {story(30)}" for _ in range(12)]
    assert len(search(copies).hits) == 12


def test_a_short_item_that_is_all_phrase_is_found():
    sets = Decontaminator([make_pack("short", [("0", "Express your answer as a common fraction in lowest terms")])])
    texts = [f"{story()} Express your answer as a common fraction in lowest terms" for _ in range(10)]
    assert all(sets.hits_of_all(texts))


def test_the_certificate_says_what_was_set_aside():
    found = search([*strangers(9), ITEMS[0]])
    told = certificate(SETS.packs, [f"p{number}" for number in range(10)], found)
    assert told["num_problems_removed"] == 1
    assert told["set_aside"]["num_problems"] == 9
    assert told["set_aside"]["num_pieces"] == len(told["set_aside"]["pieces"]) > 0
    # the copy of the item holds the phrase as well
    assert told["set_aside"]["pieces"][0]["num_problems"] == 10
