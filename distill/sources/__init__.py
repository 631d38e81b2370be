"""Where problems and traces come from: Hub datasets, files, reasoning-gym, evaluation sets.

Imports `grading` and below.
"""
