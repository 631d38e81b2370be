"""What a grading worker imports before its first task, because it takes seconds."""

import logging
import os

os.environ.setdefault("RAYON_NUM_THREADS", "1")  # rensa's own threads: there is a worker a core already

import math_verify  # noqa: F401

import distill.grading  # noqa: F401
from distill.grading.gym_tasks import import_gym

import_gym()

# It warns that its own time limits are off, which they are on purpose: the pool's are used.
logging.getLogger("math_verify").setLevel(logging.ERROR)
