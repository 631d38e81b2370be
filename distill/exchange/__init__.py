"""Exchange of evaluations with other tools: logs of Inspect and details of lighteval, written and read."""
