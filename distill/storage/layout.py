"""Names of the files and folders of a run.

runs/<name>/
  summary.json  report.html  recipe.lock.yaml  command.json  plan.json
  <stage>/manifest.json …

With `rounds:`, each round has such a folder, without a lock and a command, in that of the run:

runs/<name>/
  summary.json  report.html  recipe.lock.yaml  command.json
  <round>/summary.json  report.html  plan.json  gate.json
  <round>/<stage>/manifest.json …
"""

# In the run's folder.
SUMMARY = "summary.json"
REPORT = "report.html"
LOCK_FILE = "recipe.lock.yaml"
COMMAND = "command.json"
"""The command that started the run."""
ESTIMATE = "plan.json"
FACTS_FILE = "facts.sqlite"
"""Grades and measures of texts, whatever the recipe; it serves several stages and recipes."""
GATE = "gate.json"
"""In a round's folder: whether its gate holds."""
WRITER_LOCK = ".lock"
"""Locked by the process that writes."""

# In the folder of every stage.
MANIFEST = "manifest.json"
"""Written last: if it exists, the stage is complete."""
IDENTITY = "identity.json"
"""What the stage's files are made from; written when the stage starts."""

# Traces and their problems.
PROBLEMS = "problems.jsonl"
TESTS = "tests"
"""Files of the tests of code problems; also in the run's folder, as they were read from their source."""
LEDGER = "ledger.jsonl"
TRACES = "traces"
SKIPPED = "skipped.jsonl"
"""Samples that were no longer needed."""

# What is evaluated.
BENCHMARKS = "benchmarks.jsonl"

# Output of the filter.
KEPT = "kept"
DROPPED = "dropped"
VERDICTS = "verdicts.jsonl"
CERTIFICATE = "decontamination.json"
"""Which evaluation sets the problems were checked against."""

# Output of training.
STUDENT = "student"
ADAPTER = "adapter"
METRICS = "metrics.jsonl"
PROBE = "probe.jsonl"
"""The held-out problems that are answered while training."""
CHECKPOINTS = "checkpoints"
"""Not needed once the student is saved."""
SEAL = "distill_seal.json"
"""Written last into a checkpoint: its owner, and the size and SHA-256 of every file."""
