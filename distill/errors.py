"""Exceptions raised by distill. Each message says what is wrong, where, and what to do next.

`UserError` and its subclasses are mistakes that the user can fix (exit code 2). Any other `DistillError` is a failure
during the work itself (exit code 1).
"""


class DistillError(Exception):
    """A failure during the work. Finished work is kept."""

    exit_code = 1
    can_go_on = False
    """Whether running the same command again resumes the work."""


class UserError(DistillError):
    """A mistake in the user's request, found before or during the work."""

    exit_code = 2


class RecipeError(UserError):
    """A recipe that cannot be read, has an unknown key or contradicts itself."""


class ProblemError(UserError):
    """A problem set that cannot be loaded, is empty or has unusable rows."""


class ModelError(UserError):
    """A model that cannot be found, read or used as the recipe asks."""


class StoreError(UserError):
    """A run folder that is in use, belongs to another recipe, is damaged or cannot be written to."""


class DiskError(StoreError):
    """A disk that is full, not writable or broken. Finished work is kept."""

    can_go_on = True


class ExchangeError(UserError):
    """An evaluation that cannot be exchanged: another tool's log or environment, or a folder without answers."""


class GateError(UserError):
    """A limit on a round's metrics that does not hold. What the round made is kept."""


class StageError(DistillError):
    """A failed stage. Finished work is kept, and the same command resumes it."""

    can_go_on = True
