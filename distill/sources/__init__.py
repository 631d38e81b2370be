"""Sources of problems and traces: Hub datasets, files, reasoning-gym and evaluation sets.

May import `grading` and the layers below it.
"""
