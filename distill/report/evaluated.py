"""The models that a run has evaluated, what they were asked and how their answers were graded, from the run's files.

evaluated_models(folder, facts)  ->  Base (eval/base), Student (eval/student), then the models of `measure`
asked_of(models, damage)  ->  the problems, the benchmark of each, and those whose texts stay hidden
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distill.core.formatting import Row, mapping
from distill.core.records import Problem, Verdict
from distill.core.redaction import scrub_text
from distill.report.damage import Damage
from distill.report.metrics import MODELS_MEASURED, measured, models_measured
from distill.storage.layout import BENCHMARKS, PROBLEMS, VERDICTS
from distill.storage.run_files import MEASURED, RunFiles
from distill.storage.run_folder import StageFolder

ROLES = {"base": "Base", "student": "Student"}
WHOLE = "all problems"
"""Name of what a run of an older version was measured on, which did not record a protocol for each benchmark."""
Verdicts = Mapping[str, list[Verdict]]
"""A model's verdicts by problem id."""
SampleScores = Mapping[str, Sequence[float]]
"""Problem id -> scores of its graded samples, from 0 to 1; problems without any are left out."""


@dataclass(frozen=True, slots=True)
class EvaluatedModel:
    """A model with a complete evaluation."""

    label: str
    role: str
    """Name of its folder and key of its scores: `base`, `student`, or made from the model's name."""
    folder: Path
    """Of its ledger and verdicts."""

    @property
    def is_student(self) -> bool:
        """Return whether the run trained it; a model that was only measured may have such a name too."""
        return self.role == "student" and self.folder.parent.name == MEASURED


@dataclass(slots=True)
class Asked:
    """What models were asked."""

    problems: dict[str, Problem] = field(default_factory=dict)
    """By id."""
    benchmark_of: dict[str, str] = field(default_factory=dict)
    """Problem id -> benchmark; without problems of older runs, which did not record it."""
    hidden: set[str] = field(default_factory=set)
    """Problems of benchmarks with a canary: no text of theirs is shown."""


def evaluated_models(folder: Path, facts: Row) -> list[EvaluatedModel]:
    """Return the models with scores: base and student, then those that were only measured.

    Args:
        folder: `runs/<name>`.
        facts: of the run.
    """
    found = [EvaluatedModel(ROLES[role], role, RunFiles(folder).answers(role)) for role in ROLES if measured(facts)]
    labels = model_labels(facts)
    return found + [EvaluatedModel(labels[role], role, folder / MODELS_MEASURED / role) for role in labels]


def model_labels(facts: Row) -> dict[str, str]:
    """Return the names of the models that were only measured, by the role that their scores are stored under."""
    found: dict[str, str] = {}
    for benchmark in models_measured(facts).get("benchmarks") or ():
        for role, score in mapping(mapping(benchmark).get("models")).items():
            name = mapping(score).get("model")
            found.setdefault(role, scrub_text(name) if isinstance(name, str) and name else role)
    names = list(found.values())
    return {role: name if names.count(name) == 1 else role for role, name in found.items()}


def asked_of(models: Iterable[EvaluatedModel], damage: Damage) -> Asked:
    """Return what the models were asked; files that cannot be read are recorded as damage.

    Where it cannot be told which problems belong to a benchmark with a canary, all of them stay hidden.
    """
    found = Asked()
    for folder in dict.fromkeys(model.folder.parent for model in models):
        before = set(found.problems)
        with damage.tolerate(folder / PROBLEMS), (folder / PROBLEMS).open(encoding="utf-8") as stream:
            for line in stream:
                problem = Problem.from_json(json.loads(line))
                found.problems.setdefault(problem.id, problem)
        told = _add_benchmarks(found, folder, damage)
        if not told:
            found.hidden |= found.problems.keys() - before
    return found


def _add_benchmarks(found: Asked, folder: Path, damage: Damage) -> bool:
    """Add the benchmarks of a stage; return whether it is known what has a canary."""
    file = folder / BENCHMARKS
    if not file.is_file() and not _records_benchmarks(folder):
        return True  # of an older version, which had no canaries
    with damage.tolerate(file), file.open(encoding="utf-8") as stream:
        for line in stream:
            row = json.loads(line)
            for name in row["problems"]:
                found.benchmark_of.setdefault(name, scrub_text(row["name"]))
            if row["canary"]:
                found.hidden |= set(row["problems"])
        return True
    return False


def _records_benchmarks(folder: Path) -> bool:
    try:
        return BENCHMARKS in mapping((StageFolder(folder).manifest or {}).get("outputs"))
    except Exception:  # damaged: then nothing is known of it
        return True


def verdicts_of(model: EvaluatedModel, damage: Damage) -> Verdicts:
    """Return the verdicts on a model's answers; empty if they cannot be read."""
    with damage.tolerate(model.folder / VERDICTS):
        return read_verdicts(model.folder)
    return {}


def read_verdicts(folder: Path) -> Verdicts:
    """Return one model's verdicts; empty if its evaluation is not finished."""
    found: dict[str, list[Verdict]] = defaultdict(list)
    file = folder / VERDICTS
    if file.exists():
        with file.open() as stream:
            for line in stream:
                verdict = Verdict.from_json(json.loads(line))
                found[verdict.problem_id].append(verdict)
    return found


def sample_scores(verdicts: Verdicts) -> SampleScores:
    """Return the scores of each problem's graded samples. An answer without a verdict has none: it is not wrong."""
    # Imported here: scoring needs the graders, whose import takes as long as that of all else the page needs.
    from distill.evaluation.scoring import scores_of

    return scores_of([verdict for given in verdicts.values() for verdict in given])


def shared_problems(first: Asked, second: Asked) -> list[str]:
    """Return the ids of problems with equal prompt, expected answer and task in both."""

    def key(problem: Problem) -> tuple[Any, ...]:
        return problem.prompt, problem.answer, problem.task

    one, other = first.problems, second.problems
    return sorted(name for name in one.keys() & other.keys() if key(one[name]) == key(other[name]))
