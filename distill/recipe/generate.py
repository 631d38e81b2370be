"""The `generate:` section: the teacher and how it is sampled."""

from typing import Any, Self

from pydantic import PositiveInt, model_validator

from distill.models.hub_names import Revision
from distill.recipe.base import Strict
from distill.recipe.sampling import LoopStop, Price, Sampling, SamplingCompute

OWNED_BODY_KEYS = frozenset(
    {"model", "messages", "temperature", "top_p", "top_k", "max_tokens", "max_completion_tokens", "seed", "n", "stream"}
)
"""Fields of a chat request that distill sets itself; `generate.extra_body` may not set them."""


class Example(Strict):
    """A worked example shown to the teacher, never to the student."""

    problem: str
    """The question, as it appears in the prompt."""
    reasoning: str
    """The chain of thought, shown inside `<think>` … `</think>`."""
    answer: str
    """The text after the reasoning, including the final answer in `\\boxed{}`."""


class GenerateConfig(Strict):
    """Stage 1: the teacher writes several answers to each problem."""

    teacher: str
    """The teacher: a Hub id, a local folder or a student's alias."""
    revision: Revision | None = None
    """Git revision of the teacher on the Hub. Default: the main branch."""
    samples_per_problem: PositiveInt = 4
    """Answers sampled per problem."""
    system: str | None = None
    """System prompt for the teacher only."""
    examples: list[Example] = []
    """Worked examples for the teacher only."""
    sampling: Sampling = Sampling()
    """Sampling parameters of the teacher."""
    extra_body: dict[str, Any] = {}
    """Extra fields for each request to a server, e.g. `{chat_template_kwargs: {enable_thinking: true}}`."""
    loops: LoopStop | None = LoopStop()
    """Stop samples that only repeat themselves (finish_reason `loop`); null: let them run to max_tokens."""
    stop_after_correct: PositiveInt | None = None
    """Stop sampling a problem once this many samples are graded correct. Default: draw all samples."""
    price: Price | None = None
    """Prices for computing the cost. Default: no cost is computed."""
    compute: SamplingCompute = SamplingCompute()
    """Where the teacher runs."""

    @model_validator(mode="after")
    def _samples_differ(self) -> Self:
        if self.sampling.temperature == 0 and self.samples_per_problem > 1:
            raise ValueError(
                f"sampling.temperature 0 is greedy: all {self.samples_per_problem} samples of a problem would be the "
                "same. Set samples_per_problem to 1 or raise the temperature"
            )
        if self.stop_after_correct is not None and self.stop_after_correct >= self.samples_per_problem:
            raise ValueError(
                f"stop_after_correct ({self.stop_after_correct}) can never apply: samples_per_problem is "
                f"{self.samples_per_problem}. Lower stop_after_correct or leave it out"
            )
        if self.extra_body and not self.compute.base_urls:
            raise ValueError("extra_body is sent to a server only; set compute.base_urls or remove extra_body")
        if taken := sorted(OWNED_BODY_KEYS & self.extra_body.keys()):
            raise ValueError(f"extra_body: {', '.join(taken)} is set by distill itself; use the fields of generate:")
        return self
