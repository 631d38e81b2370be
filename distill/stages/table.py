"""Every stage's module, and stages of a team's own."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from distill.recipe.own_stages import own_section
from distill.stages import eval, filter, generate, import_traces, measure, push, rl, sft

STAGES: dict[str, ModuleType] = {
    "generate": generate,
    "import": import_traces,
    "filter": filter,
    "sft": sft,
    "rl": rl,
    "eval": eval,
    "measure": measure,
    "push": push,
}
"""Stage -> its module."""


@contextmanager
def own_stage(module: ModuleType, before: str = "eval") -> Iterator[None]:
    """Let recipes use a stage of a team's own until the context ends.

    Args:
        module: it has what `distill.stages` lists, and `CONFIG`, the model of its section.
        before: the stage that it runs before.
    """
    with own_section(module.SECTION, module.CONFIG, before):
        STAGES[module.SECTION] = module
        try:
            yield
        finally:
            del STAGES[module.SECTION]
