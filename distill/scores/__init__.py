"""From graded answers to numbers: intervals, pass@k, win rates, and what they rest on. Pure functions."""
