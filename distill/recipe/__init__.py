"""Recipes: models, loading, merging, sources, trust, comparison and schema. Imports `models` and the layers below."""
