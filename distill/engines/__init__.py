"""Engines that turn requests into completions: vLLM, transformers, servers. Imports `filters` and below."""
