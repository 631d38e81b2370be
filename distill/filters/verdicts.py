"""Filter verdicts on the traces of one problem, computed in this process without a run folder.

Example:

    judge_traces(problem, [trace], FilterConfig())[0].reasons == ("wrong_answer",)
"""

from collections.abc import Sequence
from dataclasses import replace

from distill.core.records import Problem, Trace, Verdict
from distill.core.thinking import join_reasoning
from distill.filters.decide import ProblemNotes, decide
from distill.filters.dedup import signature
from distill.filters.facts import Facts, bare_facts
from distill.filters.language import prompt_language
from distill.filters.readability import measure
from distill.grading import grade
from distill.recipe.filter import FilterConfig


def judge_traces(
    problem: Problem,
    traces: Sequence[Trace],
    config: FilterConfig | None = None,
    seed: int = 0,
    instructions: Sequence[str] = (),
) -> list[Verdict]:
    """Grade, measure and select the traces of one problem, as `distill filter` does.

    Answers are parsed in this process without time or memory limits, so the texts must be trusted. Checks that involve
    other problems (evaluation sets, repeated problems, caps on the whole set) or a judge model are left out.

    Args:
        problem: the problem.
        traces: all its traces; lengths are their completion tokens, where known.
        config: thresholds; default: those of `FilterConfig`.
        seed: seed for random choices.
        instructions: the teacher's input besides the problem, which a trace may not repeat.

    Returns:
        One verdict per trace, in the traces' order.
    """
    config = config or FilterConfig()
    facts = [_facts(problem, trace, config, instructions) for trace in traces]
    verdicts = decide(problem, facts, ProblemNotes(), config, seed)
    return [replace(verdict, num_student_tokens=None) for verdict in verdicts]


def _facts(problem: Problem, trace: Trace, config: FilterConfig, instructions: Sequence[str]) -> Facts:
    asked = config.readability.language
    language = prompt_language(problem.question) if asked == "prompt" else asked
    is_answered = trace.finish_reason != "error"
    return replace(
        bare_facts(trace),
        num_tokens=trace.told_tokens,
        measures=measure(trace.reasoning, trace.content, language, instructions, problem.question)
        if is_answered
        else None,
        signature=signature(join_reasoning(trace.reasoning, trace.content)) if is_answered else None,
        grade=grade(problem, trace.content, gym_min_score=config.gym_min_score) if is_answered else None,
    )
