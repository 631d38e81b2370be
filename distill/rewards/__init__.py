"""Rewards of rollouts for reinforcement learning: pure functions on facts that filter and evaluation use too.

Rollouts of one problem enter (`rollouts.Rollout`), `grader.RolloutGrader` finds out what is known of each
(`rollouts.RolloutFacts`), and `scores.group_scores` says what each is worth:

    Score(total=2.0, parts={"accuracy": 1.0, "format": 1.0})
    Score(total=None, parts={"accuracy": None, "format": 1.0})      # could not be graded: left out of its group
"""
