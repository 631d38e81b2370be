"""The `eval:` section: what is evaluated, and how."""

from typing import Self

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from distill.recipe.base import Strict
from distill.recipe.problems import ProblemSource
from distill.recipe.sampling import EvalSampling, SamplingCompute


class EvalConfig(Strict):
    """Stage 4: base and student answer the same problems, none of which were trained on."""

    held_out: NonNegativeInt = 0
    """Number of problems set aside from `problems:` for evaluation, never used in training."""
    benchmarks: list[ProblemSource] = []
    """Further problem sets for evaluation; their problems are kept out of training too."""
    samples_per_problem: PositiveInt = 4
    """Answers sampled per problem (k); pass@1 is their mean."""
    sampling: EvalSampling = EvalSampling()
    """Sampling parameters, the same for base and student."""
    grade_timeout_s: PositiveFloat = 10.0
    """Time limit for grading one answer, in seconds; beyond it, the answer counts as ungraded."""
    compute: SamplingCompute = SamplingCompute()
    """Where base and student run."""

    @model_validator(mode="after")
    def _measures_something(self) -> Self:
        if not self.held_out and not self.benchmarks:
            raise ValueError("nothing to measure on: set held_out or benchmarks, or remove eval:")
        if self.sampling.temperature == 0 and self.samples_per_problem > 1:
            raise ValueError("sampling.temperature 0 gives the same answer every time: set samples_per_problem to 1")
        return self
