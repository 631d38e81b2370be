"""Where the files that one stage writes and others read lie in a run's folder."""

from dataclasses import dataclass
from pathlib import Path

from distill.results.eval import EvalMetrics
from distill.results.filter import FilterMetrics
from distill.results.generate import GenerateMetrics
from distill.results.import_traces import ImportMetrics
from distill.results.kinds import stage_with
from distill.results.rl import RlMetrics
from distill.results.sft import SftMetrics
from distill.storage.layout import (
    ADAPTER,
    CERTIFICATE,
    CHECKPOINTS,
    DROPPED,
    IDENTITY,
    KEPT,
    METRICS,
    PROBLEMS,
    STUDENT,
    VERDICTS,
)

SAMPLED = stage_with(GenerateMetrics)
IMPORTED = stage_with(ImportMetrics)
FILTERED = stage_with(FilterMetrics)
TRAINED = stage_with(SftMetrics)
REINFORCED = stage_with(RlMetrics)
MEASURED = stage_with(EvalMetrics)
"""Names of the stages, which are those of their folders."""


@dataclass(frozen=True, slots=True)
class RunFiles:
    """The files of a run without rounds, or of one round; none need exist."""

    folder: Path
    maker: str | None = None
    """The stage that makes the final model, if that is known from a recipe; `None`: the last one that has begun."""

    @property
    def sampled(self) -> Path:
        """Return the folder of sampled traces."""
        return self.folder / SAMPLED

    @property
    def imported(self) -> Path:
        """Return the folder of imported traces."""
        return self.folder / IMPORTED

    @property
    def graded(self) -> Path:
        """Return the folder of verdicts and rows."""
        return self.folder / FILTERED

    @property
    def kept(self) -> Path:
        return self.graded / KEPT

    @property
    def dropped(self) -> Path:
        return self.graded / DROPPED

    @property
    def verdicts(self) -> Path:
        return self.graded / VERDICTS

    @property
    def certificate(self) -> Path:
        return self.graded / CERTIFICATE

    @property
    def trained(self) -> Path:
        """Return the folder of the training on traces."""
        return self.folder / TRAINED

    @property
    def reinforced(self) -> Path:
        """Return the folder of reinforcement learning."""
        return self.folder / REINFORCED

    @property
    def made(self) -> Path:
        """Return the folder of the stage that makes the final model."""
        began = REINFORCED if (self.reinforced / IDENTITY).exists() else TRAINED
        return self.folder / (self.maker or began)

    @property
    def student(self) -> Path:
        """Return the final model, which is evaluated and published."""
        return self.made / STUDENT

    @property
    def adapter(self) -> Path:
        return self.made / ADAPTER

    @property
    def checkpoints(self) -> Path:
        return self.made / CHECKPOINTS

    @property
    def curve(self) -> Path:
        """Return the file with the logged steps of the training on traces."""
        return self.trained / METRICS

    @property
    def measured(self) -> Path:
        """Return the folder of the evaluation."""
        return self.folder / MEASURED

    @property
    def questions(self) -> Path:
        """Return the file with the problems that models are measured on."""
        return self.measured / PROBLEMS

    def answers(self, role: str) -> Path:
        """Return the folder of the answers of `base` or `student`."""
        return self.measured / role
