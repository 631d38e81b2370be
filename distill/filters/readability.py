"""Measures of a trace's readability, and the reasons that follow from a recipe's thresholds.

`Measures` depend on no threshold and may be cached; `unreadable` turns them into reasons (see
`distill.core.records.REASONS`). Example:

    unreadable(measure("Then we 计算 the sum.", "4", "en"), Readability()) == ["mixed_language"]
"""

from collections.abc import Sequence
from dataclasses import dataclass

from distill.core.records import Record
from distill.filters.form import boxed_answers, longest_paragraph, num_code_blocks, prompt_leak, refuses
from distill.filters.language import LanguageMeasures, measure_language
from distill.filters.repetition import measure_repetition, tail_repeats
from distill.filters.tandem import find_runs
from distill.isolation import wire
from distill.recipe.filter import Readability

MEASURES_VERSION = 4
"""Increased when a measure changes: measures of another version are not reused."""


@wire.result
@dataclass(frozen=True, slots=True)
class Measures(Record):
    """All measures of one trace, JSON-ready."""

    language: str | None
    """Language of `language_share` and `num_foreign_words`, ISO 639-1; `None`: any language is accepted."""
    language_share: float
    """See `distill.filters.language.LanguageMeasures`; 1.0 if any language is accepted."""
    num_foreign_words: int
    """See `distill.filters.language.LanguageMeasures`; 0 if any language is accepted."""
    compression_ratio: float
    """Of the window that compresses best; 1.0 if no window resembles a loop (`distill.filters.repetition`)."""
    repeated_share: float
    """Share of that window that repeats earlier text, in [0, 1]."""
    loop_repeats: int
    """Most occurrences of a piece in a row, at the end of reasoning or answer or anywhere; 1: no repeat."""
    loop_chars: int
    """Most characters in a row that repeat the text right before them."""
    longest_paragraph: int
    """In characters, without formulas, code and tables."""
    num_code_blocks: int
    """Fenced code blocks."""
    boxed_answers: tuple[str, ...]
    """Distinct boxed results of the content, normalised, in order."""
    num_disagreeing_answers: int
    """Most distinct boxed results for the same thing; 1: they agree."""
    refuses: bool
    """The content is a refusal without an answer."""
    prompt_leak: float
    """Largest share of an instruction's 8-word pieces that the trace repeats, in [0, 1]."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "boxed_answers", tuple(self.boxed_answers))  # JSON has no tuples


def measure(
    reasoning: str, content: str, language: str | None, instructions: Sequence[str] = (), problem: str = ""
) -> Measures:
    """Measure everything that `unreadable` needs, whatever the thresholds.

    Args:
        reasoning: may be empty.
        content: the answer that follows; may be empty.
        language: the expected language, ISO 639-1; `None`: any. For `prompt` in a recipe, pass
            `distill.filters.language.prompt_language` of the prompt.
        instructions: the teacher's input besides the problem: the system prompt, each worked example.
        problem: the problem, which a trace may repeat.
    """
    text = f"{reasoning}\n\n{content}"
    of_language = LanguageMeasures(1.0, 0) if language is None else measure_language(text, language)
    repetition = measure_repetition(text)
    runs = find_runs(text)
    boxed = boxed_answers(content)
    return Measures(
        language,
        of_language.share,
        of_language.num_foreign_words,
        repetition.compression_ratio,
        repetition.repeated_share,
        max(tail_repeats(reasoning), tail_repeats(text), *(run.num_repeats for run in runs)),
        max((run.num_repeated_chars for run in runs), default=0),
        longest_paragraph(text),
        num_code_blocks(text),
        boxed.answers,
        boxed.num_disagreeing,
        refuses(content),
        prompt_leak(text, instructions, problem),
    )


def unreadable(measures: Measures, config: Readability) -> list[str]:
    """Return the reasons why a trace is not fit to learn from, in arbitrary order."""
    found = {
        "mixed_language": measures.language_share < config.min_language_share
        or _over(measures.num_foreign_words, config.max_foreign_words),
        "repetition": (
            _over(measures.compression_ratio, config.max_compression_ratio)
            and measures.repeated_share > config.max_repeated_share
        )
        or _over(measures.loop_repeats, config.max_loop_repeats)
        or _over(measures.loop_chars, config.max_loop_chars),
        "long_paragraph": _over(measures.longest_paragraph, config.max_paragraph_chars),
        "code_block": measures.num_code_blocks > 0 and not config.code_blocks,
        "several_answers": measures.num_disagreeing_answers > 1 and not config.several_answers,
        "refusal": measures.refuses and not config.refusals,
        "prompt_leak": _over(measures.prompt_leak, config.max_prompt_leak),
    }
    return [reason for reason, holds in found.items() if holds]


def _over(measured: float, most: float | None) -> bool:
    return most is not None and measured > most
