"""What a recipe says: its models, reading, merging, sources, trust, comparison, schema. Imports `models` and below."""
