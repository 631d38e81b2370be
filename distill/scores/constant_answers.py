"""Answers that do not depend on the question: a fixed text can win against good answers by addressing the judge.

One such text got a win rate of 77% at AlpacaEval 2 (Zheng et al. 2024, arXiv:2410.07137). Enter answers with their
questions; leaves plain sentences, none for ordinary answers. What an answer repeats of its own question counts for
nothing: to repeat it would be the easiest way not to look constant.
"""

import re
from collections import Counter
from collections.abc import Sequence

MIN_ANSWERS = 20
"""Fewer say too little."""
MAX_CHARS = 4_000
"""Characters of a text that are looked at, from its start and from its end."""
MAX_EQUAL_SHARE = 0.2
"""Largest share of answers with one text; of ordinary ones in long form, few are the same."""
MAX_EQUAL_LENGTH_SHARE = 0.5
"""Largest share of answers with one length. Four ordinary models of AlpacaEval's leaderboard have at most 0.01."""
MAX_COMMON_SHARE = 0.7
"""Largest mean share of a text's words, without those of its question, that half of all answers have too.

GPT-4's answers have 0.00 to 0.10 on AlpacaEval, IFEval and ArenaHard.
"""
RUN_WORDS, MAX_RUN_SHARE = 8, 0.5
"""Length of a run of words that no question holds, and the largest share of answers that may have it.

Of GPT-4's answers at most 0.02 have one, such as "here's a step by step guide to".
"""
MIN_OWN_SHARE = 0.02
"""Smallest mean share of a question's words in its answer, less the share of another question's words in it.

GPT-4's answers have 0.17 to 0.41 on these three; cut to eight words, 0.19. Random words have 0.000.
"""

_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W_]{1,64}")


def constant_answers(questions: Sequence[str], answers: Sequence[str]) -> list[str]:
    """Return warnings about answers that are constant, nearly so, or have nothing to do with their questions.

    Args:
        questions: the questions, all different, that ask for free texts.
        answers: the answer to each, after the thinking.

    Raises:
        ValueError: there are not as many answers as questions.
    """
    if len(questions) != len(answers):
        raise ValueError(f"{len(questions)} questions have {len(answers)} answers")
    if len(answers) < MIN_ANSWERS:
        return []
    asked, given = [_words(text) for text in questions], [_words(text) for text in answers]
    topics, texts = ([frozenset(words) for words in several] for several in (asked, given))
    own = [words - topic for words, topic in zip(texts, topics, strict=True)]
    constant = [_equal_texts(answers), _common_words(own) or _common_run(asked, given)]
    if not any(constant):
        constant = [_equal_lengths([len(answer) for answer in answers])]
    return [sentence for sentence in (*constant, _foreign_texts(topics, texts)) if sentence is not None]


def _words(text: str) -> list[str]:
    seen = text if len(text) <= 2 * MAX_CHARS else f"{text[:MAX_CHARS]} {text[-MAX_CHARS:]}"
    return [word.casefold() for word in _WORD.findall(seen)]


def _equal_lengths(num_chars: Sequence[int]) -> str | None:
    chars, num = Counter(num_chars).most_common(1)[0]
    if num <= MAX_EQUAL_LENGTH_SHARE * len(num_chars):
        return None
    return (
        f"{num:,} of {len(num_chars):,} answers have exactly {chars:,} characters: a constant text may be gaming the "
        "judge, and the score would not be the model's."
    )


def _equal_texts(answers: Sequence[str]) -> str | None:
    text, num = Counter(" ".join(answer[:MAX_CHARS].split()).casefold() for answer in answers).most_common(1)[0]
    if num <= MAX_EQUAL_SHARE * len(answers):
        return None
    what = "are the same text" if text else "are empty"
    return f"{num:,} of {len(answers):,} answers {what}: the score is not that of a model that answers."


def _common_words(texts: Sequence[frozenset[str]]) -> str | None:
    numbers = Counter(word for words in texts for word in words)
    common = {word for word, num in numbers.items() if num >= len(texts) / 2}
    shares = [len(words & common) / len(words) for words in texts if words]
    if not shares or sum(shares) / len(shares) <= MAX_COMMON_SHARE:
        return None
    return (
        f"{sum(shares) / len(shares):.0%} of an answer's own words are in half of all answers: they are nearly one "
        "text, which may be gaming the judge."
    )


def _common_run(questions: Sequence[Sequence[str]], answers: Sequence[Sequence[str]]) -> str | None:
    numbers: Counter[tuple[str, ...]] = Counter()
    for asked, given in zip(questions, answers, strict=True):
        numbers.update(_runs(given) - _runs(asked))
    run, num = next(iter(numbers.most_common(1)), ((), 0))
    if num <= MAX_RUN_SHARE * len(answers):
        return None
    return (
        f"{num:,} of {len(answers):,} answers hold the words \u201c{' '.join(run)}\u201d, which are not from their "
        "questions: a fixed text may be gaming the judge."
    )


def _runs(words: Sequence[str]) -> set[tuple[str, ...]]:
    return {tuple(words[start : start + RUN_WORDS]) for start in range(len(words) - RUN_WORDS + 1)}


def _foreign_texts(questions: Sequence[frozenset[str]], texts: Sequence[frozenset[str]]) -> str | None:
    """Return a warning if answers repeat no more words of their own question than of the next one."""
    others = [*questions[1:], questions[0]]
    excess = [
        (len(own & words) / len(own)) - (len(other & words) / len(other))
        for own, other, words in zip(questions, others, texts, strict=True)
        if own and other
    ]
    if not excess or sum(excess) / len(excess) >= MIN_OWN_SHARE:
        return None
    return (
        "Answers share no more words with their own question than with another one: they seem not to "
        "depend on the question, and may be gaming the judge."
    )
