"""Training the student: rows as they are trained, checks and estimates before, TRL's SFTTrainer, the saved student."""
