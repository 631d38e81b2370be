"""Evaluation: which problems are asked and how, answers and their grades, and the scores that follow.

What `eval` (base and student), `measure` (any models) and the replay of stored answers share.
"""
