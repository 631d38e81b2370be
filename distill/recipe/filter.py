"""The `filter:` section: which traces are kept."""

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from distill.models.hub_names import EvaluationSet
from distill.recipe.base import Language, Share, Strict
from distill.recipe.sampling import Sampling, SamplingCompute


class Readability(Strict):
    """Readability limits, after DeepSeek-R1's filter (arXiv:2501.12948, section 2.3.3)."""

    language: Language | Literal["prompt"] | None = "en"
    """ISO 639-1 code of the language that traces must be in; `prompt`: the prompt's language; null: any."""
    min_language_share: Share = 0.95
    """Minimum share of words in that language (LaTeX, code, names and numbers are not counted)."""
    max_foreign_words: NonNegativeInt | None = 0
    """Maximum number of words in other languages; null: only their share counts."""
    max_compression_ratio: PositiveFloat | None = 6.0
    """Maximum ratio of raw to zlib-compressed size of any 4,096 characters (real mathematics has up to 4.5); null: no
    limit."""
    max_repeated_share: Share = 0.5
    """A text above that ratio counts as repetitive only if more than this share of it copies earlier text literally."""
    max_loop_repeats: PositiveInt | None = 10
    """Maximum number of repeats of one phrase in a row; null: no limit. Applies at the end of the reasoning or the
    answer if the phrase has at least 4 words, and anywhere if all repeats together have 300 characters (1,000 if it has
    no letters)."""
    max_loop_chars: PositiveInt | None = 600
    """Maximum number of characters in a row that repeat the text right before them, three times or more; null: no
    limit."""
    max_paragraph_chars: PositiveInt | None = 6_000
    """Longest paragraph, in characters; null: no limit."""
    code_blocks: bool = False
    """Keep traces with fenced code blocks."""
    several_answers: bool = False
    """Keep traces whose answer has several boxed results that disagree."""
    refusals: bool = False
    """Keep traces whose answer is a refusal."""
    max_prompt_leak: Share | None = 0.5
    """Maximum share of the 8-word pieces of the system prompt or a worked example that a trace may repeat; null: no
    limit."""


class Duplicates(Strict):
    """Removal of near-duplicates; of each group, the first by identity is kept."""

    problems: Share | None = 0.9
    """Overlap of word pieces (Jaccard) from which problems with equal numbers are duplicates; null: none are."""
    traces: Share | None = 0.9
    """The same for the traces of one problem, whatever their numbers; null: only equal texts are duplicates."""


class Majority(Strict):
    """A vote: the most common answer to a problem replaces an expected answer that is missing or doubted."""

    min_votes: Annotated[int, Field(ge=2)] = 4
    """Minimum number of traces of the problem that have an answer."""
    min_share: Annotated[float, Field(gt=0.5, le=1.0)] = 0.6
    """Minimum share of them that gives the same answer."""
    doubted: bool = False
    """Also replace an expected answer that no trace of the problem gives; otherwise only missing ones are replaced."""


class Judge(Strict):
    """A model that grades what no rule can, and may veto; it never overrides a rule."""

    model: str
    """The judge's name on its server."""
    rubric: Annotated[str, Field(min_length=1)] = (
        "The answer is correct if and only if its final result means the same as the reference answer."
    )
    """What makes an answer correct, in words."""
    role: Literal["fill", "veto", "both"] = "fill"
    """`fill`: grade what no rule can; `veto`: drop what a rule accepts but the judge rejects; `both`: do both."""
    max_chars: PositiveInt = 8_000
    """Maximum number of characters shown to the judge, from the end of the answer."""
    sampling: Sampling = Sampling(temperature=0.0, top_p=1.0, max_tokens=2_048)
    """Sampling parameters of the judge."""
    compute: SamplingCompute
    """Where the judge is served (`base_urls`)."""

    @model_validator(mode="after")
    def _is_served(self) -> Self:
        if not self.compute.base_urls:
            raise ValueError("a judge is a served model: set compute.base_urls, e.g. [http://localhost:8000/v1]")
        return self


class Select(Strict):
    """Selection among the good traces; it does not depend on the order of the rows."""

    min_pass_rate: Share = 0.0
    """Drop problems with a smaller share of correct traces among those graded."""
    max_pass_rate: Share = 1.0
    """Drop problems with a larger share of correct traces among those graded: too easy to learn from."""
    per_problem: PositiveInt | None = None
    """Maximum number of traces kept per problem. Default: all."""
    policy: Literal["shortest", "longest", "random", "diverse"] = "shortest"
    """Which ones are kept: the shortest or longest in tokens, a seeded draw, or those that differ most from each
    other."""
    per_source: PositiveInt | None = None
    """Maximum number of traces kept per source (a seeded draw). Default: all."""
    token_budget: PositiveInt | None = None
    """Maximum number of completion tokens in total (traces are drawn, seeded, until it is reached). Default: no
    limit."""

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
    """Grading processes. Default: one per core."""


class FilterConfig(Strict):
    """Stage 2: keep only correct and readable traces, and record the reasons for every drop."""

    require_think: bool = True
    """Drop traces without a complete `<think>` … `</think>` block."""
    min_tokens: PositiveInt | None = None
    """Shortest trace kept, in student tokens (reasoning and answer)."""
    max_tokens: PositiveInt | None = None
    """Longest trace kept, in student tokens (reasoning and answer). Default with `traces:`: `sft.max_length` minus
    1,024 tokens for the prompt (minus a quarter of it if that is less). Default with `generate:`: no limit."""
    readability: Readability = Readability()
    """Limits on language, repetition and form."""
    gym_min_score: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Minimum score for a gym answer to count as correct; the tasks' own scorers may give partial credit."""
    judge: Judge | None = None
    """A model for what no rule can grade. Default: such traces count as ungraded."""
    majority: Majority | None = None
    """A vote if the expected answer is missing or doubted. Default: such traces count as ungraded or wrong."""
    unanswered: Literal["drop", "keep"] = "drop"
    """Traces without an expected answer that neither judge nor majority grades: `drop` them, or `keep` them ungraded,
    for sources whose authors have verified them. With `require_think: false` they need no final answer then."""
    decontaminate: list[EvaluationSet] = []
    """Evaluation sets that must not be trained on: suites by name (aime24, math-500, gpqa-diamond, …),
    `hf:org/name[/config]` or `file:path`."""
    duplicates: Duplicates | None = Duplicates()
    """Removal of near-duplicate problems and traces; null: keep them."""
    select: Select = Select()
    """Which good traces are kept, and how many."""
    grade_timeout_s: PositiveFloat = 10.0
    """Time limit for grading one answer, in seconds; beyond it, the answer counts as ungraded."""
    grade_memory_gib: PositiveFloat = 4.0
    """Memory limit for grading one answer, in GiB; beyond it, the answer counts as ungraded."""
    compute: FilterCompute = FilterCompute()
    """Where grading runs."""

    @property
    def counts_student_tokens(self) -> bool:
        """Return whether lengths are counted in the student's tokens."""
        # Only if needed: tokenising costs about as much as all other measures together.
        return self.min_tokens is not None or self.max_tokens is not None

    @model_validator(mode="after")
    def _some_length_fits(self) -> Self:
        if self.min_tokens is not None and self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise ValueError(
                f"min_tokens ({self.min_tokens}) exceeds max_tokens ({self.max_tokens}): nothing can be kept"
            )
        return self
