"""A whole run: the runner, its plan, its record, the runs on this disk, the doctor. Imports `stages` and below."""
