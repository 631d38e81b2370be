"""What `measure` records."""

from typing import Any

from distill.results.base import Recorded
from distill.results.eval import EvalResult, Protocol

TITLE = "Measure"
DOES = "measure models"


class ModelsOnBenchmark(Recorded):
    """Scores of several models on one benchmark."""

    name: str
    protocol: Protocol
    models: dict[str, EvalResult]
    """Folder of the model's answers -> its score, which tells the model's name."""


class MeasureMetrics(Recorded):
    """Metrics of `measure`."""

    LOCKED = ("benchmarks",)

    benchmarks: list[ModelsOnBenchmark]
    engine: dict[str, Any] = {}
    """Settings of the engine of each model."""

    @property
    def tokens_spent(self) -> float | None:
        scores = [score for one in self.benchmarks for score in one.models.values()]
        return sum(one.mean_completion_tokens * one.num_answers for one in scores)

    def locked(self) -> dict[str, Any]:
        """Return the scores alone."""
        keys = ("num_problems", "samples_per_problem", "pass_at_1", "interval_95")
        return {
            "benchmarks": {
                one.name: {
                    model: {key: value for key, value in score.to_json().items() if key in keys}
                    for model, score in one.models.items()
                }
                for one in self.benchmarks
            }
        }


class MeasureInputs(Recorded):
    """The parts of the identity that others look at."""

    models: dict[str, str] = {}
    """Folder of each model -> `name@revision`."""
