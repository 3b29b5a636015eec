"""Training: the loop, the optimiser and its schedule, checkpoints, progress and pictures."""
