"""Whole runs: the runner, plans, the listing of runs and the doctor. Imports `stages` and below."""
