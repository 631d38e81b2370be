"""Reinforcement learning: which problems a step asks, stored answers, TRL's GRPOTrainer, detectors."""
