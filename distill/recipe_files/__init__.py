"""Recipes as files that people share: where they come from, what they say, how two differ, what a run pinned.

Enters: a reference (an installed recipe's name, a path, `hf:org/repo/recipe.yaml@revision`, a git URL). Leaves: files
on this machine, looked at before anything of theirs is run, and texts about them.
"""
