"""What a network thinks while it reads: its states and gates, the units that track a property of the text,
places that are alike to it, one cell's equations with their numbers, and what surprised it."""
