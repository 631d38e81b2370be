"""Sampling: keeps an engine full until every sample is stored. Imports `engines` and below."""
