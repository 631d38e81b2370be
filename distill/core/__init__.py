"""Shared basics: records, thinking marks, statistics, formatting, progress and redaction.

Imports only `distill.errors`.
"""
