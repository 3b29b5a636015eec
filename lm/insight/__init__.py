"""What a network computes while it reads: its states and gates, the units that track a property of the text,
similar contexts, the equations of a single cell, and what surprised it."""
