"""Filters: pure functions from text to a measure or a reason; the thresholds come from the recipe."""
