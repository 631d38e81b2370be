"""Filters: pure functions that measure texts or give reasons to drop them. Thresholds come from the recipe."""
