"""What the stages record: a module a stage with the model of its metrics and of the inputs that others look at.

Manifest, summary, report, card, lock and docs/json.md all read these models, so that no reader can ask for a key that
no stage writes. Imports from core alone.
"""
