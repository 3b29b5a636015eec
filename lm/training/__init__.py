"""Training: setup, the loop, the optimizer, checkpoints, and what a run leaves behind."""
