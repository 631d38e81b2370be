"""Names of the files and folders of a run, each defined once.

runs/<name>/
  summary.json  report.html  recipe.lock.yaml  command.json  plan.json
  <stage>/manifest.json …
"""

# In the run's folder.
SUMMARY = "summary.json"
REPORT = "report.html"
LOCK_FILE = "recipe.lock.yaml"
COMMAND = "command.json"
"""The command that began the run."""
ESTIMATE = "plan.json"
WRITER_LOCK = ".lock"
"""Held by the process that writes."""

# In the folder of every stage.
MANIFEST = "manifest.json"
"""Written last: its existence means that the stage is complete."""
IDENTITY = "identity.json"
"""What the files of the stage are made from, from its start on."""

# Traces, and what they answer.
PROBLEMS = "problems.jsonl"
LEDGER = "ledger.jsonl"
TRACES = "traces"
SKIPPED = "skipped.jsonl"
"""Samples that were not needed any more."""

# What the filter leaves.
KEPT = "kept"
DROPPED = "dropped"
VERDICTS = "verdicts.jsonl"
CERTIFICATE = "decontamination.json"
"""Which evaluation sets the problems were checked against."""

# What training leaves.
STUDENT = "student"
ADAPTER = "adapter"
METRICS = "metrics.jsonl"
CHECKPOINTS = "checkpoints"
"""Of no use once the student is saved."""
SEAL = "distill_seal.json"
"""Written last into a checkpoint: whose it is, and size and SHA-256 of every file."""
