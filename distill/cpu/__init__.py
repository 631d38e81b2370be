"""What this machine's CPU does fast, and what other processes leave of it.

Enters: a model's shapes. Leaves: the number format to compute in; threads that follow the load while a model runs.
"""
