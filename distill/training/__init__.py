"""Train the student: tokenised rows, checks before training, TRL's SFTTrainer, checkpoints, the saved student."""
