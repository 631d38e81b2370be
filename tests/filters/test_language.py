"""Which language a text is in, and what only looks foreign."""

import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.filters.language import (
    foreign_spans,
    has_words,
    hidden_prose,
    language_share,
    measure_language,
    prompt_language,
    prose,
)

ENGLISH = (
    "We need to find the number of apples that remain after the first day. The farmer starts with twelve apples, "
    "sells five of them in the morning and then picks another nine from the old tree behind the barn. So we add and "
    "subtract with care, and check the result twice before we write it down."
)
FRENCH = (
    "Nous devons trouver le nombre de pommes qui restent après le premier jour. Le fermier commence avec douze "
    "pommes, en vend cinq le matin et en cueille encore neuf sur le vieil arbre derrière la grange, puis il rentre "
    "chez lui et compte toutes les pommes qui se trouvent dans son panier avant de se coucher."
)
CHINESE = "我们需要先计算出第一天剩下的苹果数量,然后再把结果加起来"
RUSSIAN = "Нам нужно найти число яблок, которые остались после первого дня"
IN_THEIR_OWN_LANGUAGE = {
    "en": ENGLISH,
    "fr": FRENCH,
    "zh": CHINESE * 6,
    "ru": RUSSIAN * 5,
    "uk": "Нам потрібно знайти кількість яблук, які залишилися після першого дня. " * 5,
    "de": "Wir müssen die Anzahl der Äpfel finden, die nach dem ersten Tag übrig bleiben, und dann addieren. " * 4,
    "ja": "まず最初の日に残ったりんごの数を求める必要があります。それから結果を足します。" * 6,
    "ko": "먼저 첫날에 남은 사과의 수를 구해야 합니다. 그런 다음 결과를 더합니다. " * 8,
    "ar": "علينا أن نجد عدد التفاحات المتبقية بعد اليوم الأول من البيع. " * 6,
    "el": "Πρέπει να βρούμε τον αριθμό των μήλων που απομένουν μετά την πρώτη μέρα. " * 5,
    "hi": "हमें पहले दिन के बाद बचे सेबों की संख्या ज्ञात करनी है। " * 6,
    "he": "אנחנו צריכים למצוא את מספר התפוחים שנשארו אחרי היום הראשון. " * 6,
}


@pytest.mark.parametrize("language", IN_THEIR_OWN_LANGUAGE)
def test_a_text_is_in_its_own_language(language):
    assert language_share(IN_THEIR_OWN_LANGUAGE[language], language) > 0.95


@pytest.mark.parametrize(
    ("language", "other"), [("en", "fr"), ("fr", "en"), ("en", "zh"), ("zh", "en"), ("ru", "uk"), ("zh", "ja")]
)
def test_a_text_is_not_in_another_language(language, other):
    assert language_share(IN_THEIR_OWN_LANGUAGE[other], language) < 0.6


@pytest.mark.parametrize(
    "planted",
    [
        pytest.param(f"{ENGLISH} 然后 we 计算 it, 因为 so.", id="chinese words"),
        pytest.param(f"{ENGLISH} {CHINESE}", id="chinese sentence"),
        pytest.param("Let's计算一下then计算结果and so we are done.", id="chinese words glued to english ones"),
        pytest.param(f"{ENGLISH} {RUSSIAN}", id="russian sentence"),
        pytest.param("So the result число is знак four.", id="russian words"),
        pytest.param(f"{ENGLISH} {FRENCH} {ENGLISH}", id="french sentences"),
    ],
)
def test_planted_words_are_found(planted):
    measures = measure_language(planted, "en")
    assert measures.num_foreign_words >= 2
    assert measures.share < 0.95


def test_the_share_is_that_of_the_words():
    assert language_share("one two three четыре", "en") == pytest.approx(3 / 4)
    assert language_share("one two three четыре", "ru") == pytest.approx(1 / 4)
    # Chinese has no spaces: each sign counts as a word
    assert language_share("one two 三四五六", "en") == pytest.approx(2 / 6)
    assert language_share("one two 三四五六", "zh") == pytest.approx(4 / 6)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("The angles α, β and γ add up to π.", id="greek variables"),
        pytest.param("Its area is πr², and Δx is small. With θx, 2πr and ΔH it is the same.", id="glued variables"),
        pytest.param(r"Thus $\alpha + \text{сумма}$ and \(\beta \text{ 总和 }\) hold.", id="inline latex"),
        pytest.param("Thus $$\n\\text{сумма всех}\n$$ and \\[ 总和等于 \\] hold.", id="display latex"),
        pytest.param("So \\begin{align*}\nсумма &= 4\n\\end{align*} holds.", id="latex environment"),
        pytest.param(r"So \text{сумма} is it, \boxed{四}.", id="latex commands"),
        pytest.param("Run this:\n```python\n# сумма всех чисел\nprint('总和')\n```\nDone.", id="code block"),
        pytest.param("Run this:\n```python\n# сумма всех чисел", id="code block cut off"),
        pytest.param("The variable `сумма` is it.", id="inline code"),
        pytest.param("It costs 5 € at 20 °C — that’s naïve, Zoë!", id="signs and accents"),
        pytest.param("It is 6.02 × 10²³, or x¹⁰ + y₁₂, or ½.", id="superscripts and fractions"),
        pytest.param("Let ℝ be the reals, and ℕ ⊂ ℤ ⊂ ℚ.", id="blackboard letters"),
        pytest.param("The product αβγ is small, and ΑΒΓΔ is a square.", id="greek variables side by side"),
        pytest.param("So 𝑥 + 𝑦 = 𝐳, with ℵ₀ of them, 5 µm and 3 Ω.", id="styled letters and units"),
    ],
)
def test_what_belongs_to_no_language_does_not_count(text):
    assert measure_language(text, "en") == (1.0, 0)


@pytest.mark.parametrize("text", ["", "   ", "2 + 2 = 4", "$x$", "```\nx\n```", "1️⃣ → ∞ ≤ ≠"])
def test_a_text_without_words_is_in_every_language(text):
    assert language_share(text, "en") == 1.0
    assert language_share(text, "zh") == 1.0


def test_chinese_reasoning_with_variables():
    assert language_share("设 x 为整数, 所以 x + y = 3, 因此 y 等于 2。", "zh") == 1.0
    assert language_share("设x为整数,所以x加y等于3。", "zh") == 1.0


def test_short_texts_are_not_told_apart_within_a_script():
    assert language_share("Le résultat est quatre.", "en") == 1.0


def test_prose_is_what_is_left_without_code_and_latex():
    text = "Let $x$ be `y`, then\n```\nz = 1\n```\n\\[ w \\] so \\frac{a}{b} it is."
    assert prose(text).split() == ["Let", "be", ",", "then", "so", "it", "is."]


def test_a_price_does_not_start_a_formula_that_never_ends():
    assert "foreign" in prose("It costs $5.\nforeign words\nand $6.")


def test_the_words_are_counted():
    assert measure_language("one two three четыре", "en") == (3 / 4, 1)
    assert measure_language("one two 三四五六", "en") == (2 / 6, 4)
    assert measure_language("We find λόγος here.", "en").num_foreign_words == 1
    assert measure_language("답은 네 개 is it.", "en").num_foreign_words == 3


def test_one_foreign_word_in_a_long_text_is_counted():
    assert measure_language(ENGLISH * 100 + " число " + ENGLISH * 100, "en").num_foreign_words == 1


def test_foreign_sentences_of_the_same_script_are_counted():
    measures = measure_language(ENGLISH * 3 + FRENCH + ENGLISH * 3, "en")
    assert 10 < measures.num_foreign_words < 100
    assert 0.8 < measures.share < 0.95


def test_latin_in_another_script_lowers_the_share_and_is_no_foreign_word():
    assert measure_language("设 sin x 等于 cos y", "zh") == (3 / 5, 0)


def test_dollars_that_are_prices_open_no_formula():
    assert "foreign" in prose(r"It costs \$5, foreign words, and \$6.")


@pytest.mark.parametrize("language", sorted(IN_THEIR_OWN_LANGUAGE))
def test_the_language_of_a_prompt(language):
    assert prompt_language(IN_THEIR_OWN_LANGUAGE[language]) == language


@pytest.mark.parametrize("text", ["", "2 + 2 = ?", r"$\int x\,dx$", "x + y", "ok", "\ud800\x00"])
def test_a_prompt_too_short_to_tell_has_no_language(text):
    assert prompt_language(text) is None


def test_short_prompts_in_a_script_of_one_language():
    assert prompt_language("求x的值") == "zh"
    assert prompt_language("xの値は?") == "ja"
    assert prompt_language("Να βρεθεί το x") == "el"


def test_no_character_is_refused():
    everything = "".join(map(chr, range(sys.maxunicode + 1)))
    for language in ("en", "zh", "ru"):
        assert 0.0 <= measure_language(f"{everything} {ENGLISH}", language).share <= 1.0


any_text = st.text(st.characters(exclude_categories=()))
wild_text = st.lists(
    st.sampled_from(["word ", "слово ", "词", "α", "$", "$$", "```", "`", "\\[", "\\]", "\\begin{a}", "\\end{a}", "\n"])
    | any_text,
    max_size=40,
).map("".join)


@settings(deadline=None)
@given(wild_text, st.sampled_from(["en", "fr", "zh", "ja", "ru", "ar", "he", "vi"]), st.integers(1, 30))
def test_any_text_can_be_measured(text, language, times):
    measures = measure_language(text * times, language)
    assert 0.0 <= measures.share <= 1.0
    assert measures.num_foreign_words >= 0
    assert language_share(text * times, language) == measures.share
    assert prompt_language(text * times) is None or len(prompt_language(text * times)) == 2


@settings(deadline=None)
@given(wild_text)
def test_formulas_and_code_hide_what_is_in_them(text):
    safe = text.replace("$", "").replace("`", "").replace("\\", "").replace("\n", "")
    assert language_share(f"one ${safe}$ two", "en") == 1.0
    assert language_share(f"one ```{safe}``` two", "en") == 1.0


@settings(deadline=None)
@given(st.lists(st.sampled_from(["слово", "词", "λόγος", "단어", "שלום"]), max_size=8), st.integers(1, 50))
def test_every_foreign_word_counts(words, num_english):
    text = "number " * num_english + " ".join(words)
    assert measure_language(text, "en").num_foreign_words == len(words)


def test_words_of_another_script_are_found_where_they_stand():
    text = "Then we 计算 the sum $计$ of `终` α and 最后 7."
    assert [text[start:end] for start, end in foreign_spans(text, "en")] == ["计算", "最后"]


def test_a_sentence_of_another_language_in_the_same_script_is_found_where_it_stands():
    english = "Now we compute the sum of the two numbers and carry the one over to the column on its left. " * 4
    french = "Pour trouver la somme de ces deux nombres, nous devons additionner chaque terme avec soin. " * 3
    text = english + french + english
    ((start, end),) = foreign_spans(text, "en")
    assert abs(start - len(english)) < 20
    assert abs(end - len(english + french)) < 20


def test_latin_words_are_marked_only_where_nothing_else_is_foreign():
    assert [*foreign_spans("求和 sum 很 很好", "zh")] == [(3, 6)]
    mixed = "求和 sum 很好 сумма"
    assert [mixed[start:end] for start, end in foreign_spans(mixed, "zh")] == ["сумма"]


@given(st.text(), st.sampled_from(["en", "zh", "el", "fr"]))
def test_foreign_spans_lie_in_the_text_and_do_not_overlap(text, language):
    end_before = 0
    for start, end in foreign_spans(text, language):
        assert end_before <= start < end <= len(text)
        end_before = end


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Two and two", True),
        ("我", True),
        ("a + b", False),
        ("$\\text{if so}$", False),
        ("\u3164\u200b…", False),
        ("", False),
    ],
)
def test_single_letters_and_invisible_ones_are_no_words(text, words):
    assert has_words(text) == words


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("one $\\text{我们}$ two `слово` three", "我们 слово"),
        ("$\\text{ if both are equal}$ and $5 \\text{ cm}$", " if both are equal"),
        ("αβγ $αβγ$ 我们", ""),
    ],
)
def test_prose_within_formulas_and_code_is_found(text, hidden):
    assert hidden_prose(text) == hidden
