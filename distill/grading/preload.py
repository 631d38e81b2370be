"""What a grading worker imports before its first task, because it takes seconds."""

import logging
import warnings

import math_verify  # noqa: F401

import distill.grading  # noqa: F401

with warnings.catch_warnings():
    # cellpylib, which reasoning-gym imports, compares with `is "…"`; Python says so when it first compiles it.
    warnings.simplefilter("ignore", SyntaxWarning)
    import reasoning_gym  # noqa: F401

# It warns that its own time limits are off, which they are on purpose: the pool's are used.
logging.getLogger("math_verify").setLevel(logging.ERROR)
