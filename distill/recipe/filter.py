"""`filter:`: which traces are kept."""

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from distill.models.hub_names import EvaluationSet
from distill.recipe.base import Language, Share, Strict
from distill.recipe.sampling import Sampling, SamplingCompute


class Readability(Strict):
    """What makes a trace unreadable, as DeepSeek-R1 dropped it (arXiv:2501.12948, section 2.3.3)."""

    language: Language | Literal["prompt"] | None = "en"
    """ISO 639-1 code of the language that traces must be in; `prompt`: the prompt's own; null: any."""
    min_language_share: Share = 0.95
    """Least share of the words that must be in that language (LaTeX, code, names and numbers set aside)."""
    max_foreign_words: NonNegativeInt | None = 0
    """Most words in another language; null: only their share counts."""
    max_compression_ratio: PositiveFloat | None = 6.0
    """Highest ratio of raw to zlib-compressed size of any 4,096 characters; real mathematics has up to 4.5."""
    max_repeated_share: Share = 0.5
    """Such a text counts as repetition only if more than this share of it is a literal copy of earlier text."""
    max_loop_repeats: PositiveInt | None = 10
    """Most repeats of one phrase in a row: at the end of the thought or of the answer if it has at least 4
    words, anywhere if all repeats together have 300 characters (1,000 where it has no letters); null: any."""
    max_loop_chars: PositiveInt | None = 600
    """Most characters in a row that may repeat the text right before them, three times or more; null: any."""
    max_paragraph_chars: PositiveInt | None = 6_000
    """Longest paragraph, in characters; null: any."""
    code_blocks: bool = False
    """Keep traces with fenced code blocks."""
    several_answers: bool = False
    """Keep traces whose answer holds several boxed results that disagree."""
    refusals: bool = False
    """Keep traces whose answer refuses to answer."""
    max_prompt_leak: Share | None = 0.5
    """Largest share of the system prompt's or a worked example's 8-word pieces that a trace may repeat; null: any."""


class Duplicates(Strict):
    """Near-duplicates; of several, the first by identity is kept."""

    problems: Share | None = 0.9
    """Problems with equal numbers whose word pieces overlap by this share (Jaccard) are duplicates; null: none are."""
    traces: Share | None = 0.9
    """The same for the traces of one problem, whatever their numbers; null: only equal texts are duplicates."""


class Majority(Strict):
    """The answer that most traces of a problem give replaces an expected answer that is missing or doubted."""

    min_votes: Annotated[int, Field(ge=2)] = 4
    """Least number of traces of the problem with an answer."""
    min_share: Annotated[float, Field(gt=0.5, le=1.0)] = 0.6
    """Least share of them that gives the same answer."""
    doubted: bool = False
    """Also override an expected answer that no trace of the problem gives; else only missing ones are replaced."""


class Judge(Strict):
    """A model that grades what no rule can, and may veto; it never overrides a rule."""

    model: str
    """The judge's name at its server."""
    rubric: Annotated[str, Field(min_length=1)] = (
        "The answer is correct if and only if its final result means the same as the reference answer."
    )
    """What makes an answer right, in words."""
    role: Literal["fill", "veto", "both"] = "fill"
    """`fill`: grade what no rule can; `veto`: drop what a rule calls right and the judge wrong; `both`."""
    max_chars: PositiveInt = 8_000
    """Most characters of an answer's end that the judge is shown."""
    sampling: Sampling = Sampling(temperature=0.0, top_p=1.0, max_tokens=2_048)
    """How the judge's tokens are drawn."""
    compute: SamplingCompute
    """Where the judge is served (`base_urls`)."""

    @model_validator(mode="after")
    def _is_served(self) -> Self:
        if not self.compute.base_urls:
            raise ValueError("a judge is a served model: set compute.base_urls, e.g. [http://localhost:8000/v1]")
        return self


class Select(Strict):
    """Which good traces are kept; the choice does not depend on the order of the rows."""

    min_pass_rate: Share = 0.0
    """Drop problems of which a smaller share of the graded traces is right."""
    max_pass_rate: Share = 1.0
    """Drop problems of which a larger share of the graded traces is right: too easy to learn from."""
    per_problem: PositiveInt | None = None
    """Most traces kept of a problem; left out: all."""
    policy: Literal["shortest", "longest", "random", "diverse"] = "shortest"
    """Which ones: with the fewest tokens, with the most, a seeded draw, or those that differ most from each other."""
    per_source: PositiveInt | None = None
    """Most traces kept of a source (a seeded draw); left out: all."""
    token_budget: PositiveInt | None = None
    """Most completion tokens in total (a seeded draw of traces until it is reached); left out: no limit."""

    @model_validator(mode="after")
    def _band_is_not_empty(self) -> Self:
        if self.min_pass_rate > self.max_pass_rate:
            raise ValueError(
                f"min_pass_rate ({self.min_pass_rate:g}) exceeds max_pass_rate ({self.max_pass_rate:g}): no problem "
                "can be kept"
            )
        return self


class FilterCompute(Strict):
    """Where grading runs; not part of a fingerprint."""

    workers: PositiveInt | None = None
    """Grading processes; left out: one per core."""


class FilterConfig(Strict):
    """Stage 2: only correct and readable traces are kept; every drop has its reasons."""

    require_think: bool = True
    """Drop traces without a whole `<think>` … `</think>` block."""
    min_tokens: PositiveInt | None = None
    """Shortest trace kept, in student tokens (reasoning and answer)."""
    max_tokens: PositiveInt | None = None
    """Longest trace kept, in student tokens (reasoning and answer). Left out with `traces:`: `sft.max_length` less
    1,024 tokens for the prompt (a quarter of it where that is less). Left out with `generate:`: any length."""
    readability: Readability = Readability()
    """Language, repetition, form."""
    gym_min_score: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """A gym answer is right from this score of the task's own scorer on; it gives parts of a point for parts."""
    judge: Judge | None = None
    """A model for what no rule can grade; left out: such traces count as ungraded."""
    majority: Majority | None = None
    """A vote where the expected answer is missing or doubted; left out: such traces count as ungraded or wrong."""
    unanswered: Literal["drop", "keep"] = "drop"
    """Traces of problems without an expected answer that neither judge nor majority grades: `drop` them, or `keep` them
    ungraded, for sources whose authors have verified them."""
    decontaminate: list[EvaluationSet] = []
    """Evaluation sets whose items must not be trained on: math-500, aime24, aime25, gpqa-diamond, gsm8k,
    `hf:org/name[/config]` or `file:path`."""
    duplicates: Duplicates | None = Duplicates()
    """Near-duplicates of problems and traces; null: keep them."""
    select: Select = Select()
    """Which good traces are kept, and how many."""
    grade_timeout_s: PositiveFloat = 10.0
    """A grading that takes longer is stopped and counts as ungraded, in seconds."""
    grade_memory_gib: PositiveFloat = 4.0
    """A grading that takes more memory is stopped and counts as ungraded, in GiB."""
    compute: FilterCompute = FilterCompute()
    """Where grading runs."""

    @model_validator(mode="after")
    def _some_length_fits(self) -> Self:
        if self.min_tokens is not None and self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise ValueError(
                f"min_tokens ({self.min_tokens}) exceeds max_tokens ({self.max_tokens}): nothing can be kept"
            )
        return self
