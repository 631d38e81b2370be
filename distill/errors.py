"""The exceptions of distill: every message says what is wrong, where, and what to do next.

`UserError` and its children are mistakes that the reader can fix (exit code 2); any other `DistillError` is a failure
of the work itself (exit code 1).
"""


class DistillError(Exception):
    """Something went wrong while working; what was finished before it is kept."""

    exit_code = 1
    can_go_on = False
    """Whether the same command, given again, goes on from where this stopped it."""


class UserError(DistillError):
    """A mistake in what was asked for, found before or while working."""

    exit_code = 2


class RecipeError(UserError):
    """A recipe that cannot be read, has an unknown key, or contradicts itself."""


class ProblemError(UserError):
    """A problem set that cannot be loaded, is empty, or has rows that cannot be used."""


class ModelError(UserError):
    """A model that cannot be found, read or used for what the recipe asks."""


class StoreError(UserError):
    """A run folder that is in use, belongs to another recipe, is damaged, or cannot be written to."""


class DiskError(StoreError):
    """A disk that is full, not writable or broken; nothing finished is lost."""

    can_go_on = True


class StageError(DistillError):
    """A stage failed; its finished work is kept and the same command goes on from there."""

    can_go_on = True
