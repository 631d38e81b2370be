"""IFEval's four accuracies, from what each answer made of its instructions (Zhou et al. 2023, arXiv:2311.07911)."""

from collections.abc import Callable, Mapping, Sequence

from distill.grading.instructions import InstructionResult, all_followed
from distill.results.eval import Figure
from distill.scores.shares import pooled_share

Followed = Sequence[InstructionResult]
"""What one answer made of each of its instructions."""

_RULES: Mapping[str, Callable[[InstructionResult], bool | None]] = {
    "strict": lambda result: result.strict,
    "loose": lambda result: result.loose,
}


def instruction_figures(answers: Mapping[str, Sequence[Followed]]) -> dict[str, Figure]:
    """Return the accuracies that can be told.

    Args:
        answers: prompt -> each answer's results; an answer that is missing has results that are not known.

    Returns:
        `prompt_strict`, `prompt_loose`: the share of answers that follow all their instructions;
        `instruction_strict`, `instruction_loose`: the share of instructions that are followed.
    """
    outcomes: dict[str, dict[str, list[float | None]]] = {}
    for rule, of in _RULES.items():
        followed = {name: [[of(result) for result in one] for one in several] for name, several in answers.items()}
        outcomes[f"prompt_{rule}"] = {
            name: [_share(all_followed(one) if one else None) for one in several] for name, several in followed.items()
        }
        outcomes[f"instruction_{rule}"] = {
            name: [_share(result) for one in several for result in one] for name, several in followed.items()
        }
    found = {key: pooled_share(of_key) for key, of_key in outcomes.items()}
    return {key: figure for key, figure in found.items() if figure is not None}


def _share(outcome: bool | None) -> float | None:
    return None if outcome is None else float(outcome)
