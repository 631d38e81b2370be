"""The order of the stages."""

STAGE_NAMES = ["generate", "import", "filter", "sft", "rl", "eval", "measure", "push"]
"""All stages in running order; a round has `generate` or `import`. `distill.recipe.own_stages` adds to it."""
PUBLISHING = "push"
"""The stage that runs after those of all rounds, in the round whose model is published."""

MAKING_ROWS = ("generate", "import", "filter")
"""The stages whose results are the rows to train on."""
MAKING_MODELS = ("sft", "rl")
"""The stages that make a model, in order; each trains what the one before made. Their sections have their names."""


def stage_of(step_id: str) -> str:
    """Return the stage of a step, from the step's id (`sft`, `<round>/sft`)."""
    return step_id.rpartition("/")[2]
