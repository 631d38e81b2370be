"""What the stages' estimates of a run start from: its models, its samples, and the rows to train on."""

from dataclasses import dataclass, field

from distill.estimates.counts import Workload
from distill.estimates.measured import Measured
from distill.estimates.models import ModelFacts, model_facts
from distill.estimates.quantities import Range
from distill.estimates.rl_cost import rollout_tokens
from distill.estimates.sampling_cost import ANSWERS, REASONING, SamplingLoad, asked_of_teacher
from distill.estimates.training_cost import Rows, expected_rows
from distill.recipe.model import Recipe
from distill.training.layout import Layout


@dataclass(slots=True)
class Known:
    """Inputs of the stages' estimates."""

    recipe: Recipe
    work: Workload
    seen: Measured
    student: ModelFacts
    teacher: ModelFacts | None = None
    asked: SamplingLoad | None = None
    traces: Range = field(default_factory=lambda: Range(0.0, 0.0))
    trace_tokens: Range = REASONING
    """Mean per trace."""
    rows: Rows | None = None
    """To train on; `None`: there are none."""
    layout: Layout | None = None
    """Of the training, once it was estimated."""
    num_measured: int = 2
    """Models that the evaluation samples, besides `models`."""
    models: tuple[ModelFacts, ...] = ()
    """The models of `eval.models`."""

    @classmethod
    def of(
        cls, recipe: Recipe, student: ModelFacts, work: Workload, seen: Measured, taught: Range | None = None
    ) -> "Known":
        """Return what is known before anything is loaded.

        Args:
            recipe: without rounds, or one round as a recipe without rounds.
            student: the model that all training starts from.
            work: the problems or imported traces.
            seen: measurements of the run.
            taught: tokens of the rows that the teacher learnt from, if an earlier round makes it.
        """
        if recipe.generate is None and not recipe.traces:  # a round that trains on the rows of others
            return cls(recipe, work, seen, student)
        if recipe.generate is None:
            usual = REASONING if recipe.filter.require_think else ANSWERS
            length, traces = work.trace_tokens or usual, work.train
            if seen.imported is not None:
                length = seen.imported.completion_tokens
                traces = Range.exact(seen.imported.num_traces, length.basis)
            rows = expected_rows(recipe, work, traces, length, seen)
            traces = traces.because(traces.basis or "rows of the sources")
            return cls(recipe, work, seen, student, traces=traces, trace_tokens=length, rows=rows)
        config = recipe.generate
        asked = asked_of_teacher(config, work, seen.traces, taught)
        return cls(
            recipe,
            work,
            seen,
            student,
            teacher=model_facts(config.teacher, config.revision, config.compute.dtype),
            asked=asked,
            traces=asked.num_samples,
            trace_tokens=asked.completion_tokens,
            rows=expected_rows(recipe, work, asked.num_samples, asked.completion_tokens, seen),
        )

    @property
    def is_served(self) -> bool:
        """Return whether a server holds the teacher."""
        return self.recipe.generate is not None and bool(self.recipe.generate.compute.base_urls)

    @property
    def answer_tokens(self) -> Range | None:
        """Return the mean length of the trained student's answers, in tokens; `None`: nothing is trained."""
        if self.recipe.rl is not None:
            return rollout_tokens(self.recipe.rl, self.rows)
        return None if self.rows is None else self.rows.completion_tokens

    @property
    def num_wanted(self) -> float:
        """Return how many samples the recipe requests from the teacher, at most."""
        return self.asked.num_samples.high if self.asked else 0.0
