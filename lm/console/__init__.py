"""Output in a terminal or notebook: lines, progress bars, and the commands that messages name."""
