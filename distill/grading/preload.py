"""Slow imports, done once before a grading worker's first task."""

import logging
import os

os.environ.setdefault("RAYON_NUM_THREADS", "1")  # rensa's own threads: there is already a worker per core

import math_verify  # noqa: F401

import distill.grading  # noqa: F401
from distill.grading.gym_tasks import import_gym

import_gym()

# It warns that its own time limits are off. The pool's limits are used instead.
logging.getLogger("math_verify").setLevel(logging.ERROR)
