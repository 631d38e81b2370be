"""What every other part uses: records, thinking marks, statistics, formatting, progress, redaction.

Imports errors alone.
"""
