"""What is unreadable, and what only looks so: mathematics, code, lists."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.filters.readability import compression_ratio, language_share, prose, tail_repeats, unreadable
from distill.recipe import Readability

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
ANY = Readability()

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
    share = language_share(IN_THEIR_OWN_LANGUAGE[other], language)
    assert share < 0.6
    assert unreadable(IN_THEIR_OWN_LANGUAGE[other], Readability(language=language)) == ["mixed_language"]


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
    assert unreadable(planted, ANY) == ["mixed_language"]


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
    ],
)
def test_what_belongs_to_no_language_does_not_count(text):
    assert language_share(text, "en") == 1.0


@pytest.mark.parametrize("text", ["", "   ", "2 + 2 = 4", "$x$", "```\nx\n```", "1️⃣ → ∞ ≤ ≠"])
def test_a_text_without_words_is_in_every_language(text):
    assert language_share(text, "en") == 1.0
    assert language_share(text, "zh") == 1.0


def test_chinese_reasoning_with_variables():
    assert language_share("设 x 为整数, 所以 x + y = 3, 因此 y 等于 2。", "zh") == 1.0
    assert language_share("设x为整数,所以x加y等于3。", "zh") == 1.0


def test_short_texts_are_not_told_apart_within_a_script():
    assert language_share("Le résultat est quatre.", "en") == 1.0


def test_any_language_is_fine_where_none_is_asked_for():
    assert unreadable(f"{ENGLISH} {CHINESE} {FRENCH}", Readability(language=None)) == []


def test_the_threshold_is_the_recipes():
    text = "one two three four five six seven eight nine десять"
    assert unreadable(text, Readability(min_language_share=0.95)) == ["mixed_language"]
    assert unreadable(text, Readability(min_language_share=0.9)) == []


def test_prose_is_what_is_left_without_code_and_latex():
    text = "Let $x$ be `y`, then\n```\nz = 1\n```\n\\[ w \\] so \\frac{a}{b} it is."
    assert prose(text).split() == ["Let", "be", ",", "then", "so", "it", "is."]


def test_a_price_does_not_start_a_formula_that_never_ends():
    assert "foreign" in prose("It costs $5.\nforeign words\nand $6.")


@pytest.mark.parametrize(
    ("piece", "times"),
    [
        ("Wait, let me check that again. ", 30),
        ("So the answer is four. ", 11),
        ("no " * 4, 15),
        (ENGLISH + " ", 11),
    ],
)
def test_a_loop_at_the_end_is_found(piece, times):
    text = f"{ENGLISH} First of all. " + piece * times
    assert tail_repeats(text) >= times
    assert unreadable(text, ANY) == ["repetition"]
    assert unreadable(text, Readability(max_loop_repeats=times + 100, max_compression_ratio=None)) == []


def test_a_loop_that_was_cut_off_in_the_middle_of_a_piece_is_found():
    assert tail_repeats("Then we go on. " + "Wait, let me check that again. " * 20 + "Wait, let me") >= 19


def test_a_few_repeats_are_no_loop():
    assert tail_repeats("Let me think. " + "So it is four then. " * 3) == 3
    assert unreadable("Let me think. " + "So it is four then. " * 3, ANY) == []
    assert tail_repeats(ENGLISH) == 1
    assert tail_repeats("") == 1
    assert tail_repeats("one two three") == 1


def test_a_loop_in_the_middle_shows_in_the_compression():
    text = "Wait, let me check that again. " * 200 + ENGLISH
    assert tail_repeats(text) == 1
    assert compression_ratio(text) > 10
    assert unreadable(text, ANY) == ["repetition"]


def test_a_loop_without_spaces_shows_in_the_compression():
    assert unreadable("所以答案是四" * 200, Readability(language="zh")) == ["repetition"]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(
            "\n".join(f"{n}. Divide by {n}: the rest is {1_001 % n}." for n in range(2, 60)), id="numbered list"
        ),
        pytest.param("\n".join(f"{n} x 7 = {7 * n}, which is {7 * n % 11} mod 11" for n in range(80)), id="table"),
        pytest.param(
            "\n\n".join(
                f"{a} x {b}:\n" + "\n".join(f"{a} x {digit} = {a * int(digit)}, shifted" for digit in str(b))
                for a, b in [(123_456, 789), (987_654, 321), (555_444, 111), (10_203, 40_506), (77, 88), (31_415, 927)]
            ),
            id="long multiplication",
        ),
        pytest.param("x = 1. " + "Let me check. It is right. " * 2 + ENGLISH, id="checks twice"),
        pytest.param("| a | b |\n|---|---|\n" + "\n".join(f"| {n} | {n**2} |" for n in range(60)), id="markdown table"),
    ],
)
def test_ordinary_repetition_is_fine(text):
    assert unreadable(text, ANY) == []


def test_compression_ratio():
    assert compression_ratio("a" * 999) == 1.0  # too short to tell
    assert compression_ratio("a" * 100_000) > 100
    words = " ".join(f"{n * n % 9973}" for n in range(1_000))
    assert 1 < compression_ratio(words) < 5
    assert compression_ratio("\ud800" * 2_000) > 10  # a lone surrogate is a text too


def test_all_reasons_are_given():
    assert unreadable(f"{RUSSIAN} " * 40, ANY) == ["mixed_language", "repetition"]


any_text = st.text(st.characters(exclude_categories=()))
# letters of several scripts, mark-up that opens and never closes, and pieces that may repeat
wild_text = st.lists(
    st.sampled_from(["word ", "слово ", "词", "α", "$", "$$", "```", "`", "\\[", "\\]", "\\begin{a}", "\\end{a}", "\n"])
    | any_text,
    max_size=40,
).map("".join)


@settings(deadline=None)
@given(wild_text, st.sampled_from(["en", "fr", "zh", "ja", "ru", "ar", "he", "vi"]), st.integers(1, 30))
def test_any_text_can_be_measured(text, language, times):
    assert 0.0 <= language_share(text * times, language) <= 1.0
    assert tail_repeats(text * times) >= 1
    assert compression_ratio(text * times) > 0
    assert set(unreadable(text * times, Readability(language=language))) <= {"mixed_language", "repetition"}


@settings(deadline=None)
@given(wild_text)
def test_formulas_and_code_hide_what_is_in_them(text):
    safe = text.replace("$", "").replace("`", "").replace("\\", "").replace("\n", "")
    assert language_share(f"one ${safe}$ two", "en") == 1.0
    assert language_share(f"one ```{safe}``` two", "en") == 1.0


@settings(deadline=None)
@given(st.lists(st.sampled_from("abcdefghijklmnop"), min_size=4, max_size=50, unique=True), st.integers(1, 40))
def test_a_piece_that_follows_itself_is_counted(words, times):
    assert tail_repeats(" ".join(words * times)) == times


@pytest.mark.parametrize(
    "text",
    [
        # as long as a model can write before it is cut off
        pytest.param("\\[ x " * 20_000, id="display never closed"),
        pytest.param("\\begin{align} " * 10_000, id="environment never closed"),
        pytest.param("\\( " * 25_000, id="inline never closed"),
        pytest.param("$$ x " * 25_001, id="dollars"),
        pytest.param("``` x " * 25_001, id="code"),
        pytest.param("word " * 30_000, id="one word"),
        pytest.param("a b c d e f g " * 10_000, id="one piece"),
        pytest.param("\\text{" * 20_000, id="commands"),
    ],
)
def test_time_grows_with_the_length_of_the_text_and_not_with_its_square(text):
    started = time.monotonic()
    unreadable(text, ANY)
    assert time.monotonic() - started < 1.0


def test_a_language_that_cannot_be_told_apart_is_refused():
    for unknown in ("english", "xx", "EN"):
        with pytest.raises(ValueError, match="language"):
            Readability(language=unknown)
