"""Tasks of Inspect, run with the real package in an environment of its own; the golden logs are from them too."""

from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.scorer import choice, match
from inspect_ai.solver import generate, multiple_choice


@task
def sums():
    """Two sums, each asked twice."""
    samples = [Sample(id=f"s{i}", input=f"What is {i} + {i + 1}?", target=str(2 * i + 1)) for i in (1, 2)]
    return Task(dataset=samples, solver=generate(), scorer=match(numeric=True), epochs=2)


@task
def colours():
    """A multiple-choice question, whose prompt the solver writes."""
    sample = Sample(input="Which colour is the clear sky at noon?", choices=["Blue", "Red"], target="A")
    return Task(dataset=[sample], solver=multiple_choice(), scorer=choice())
