"""What a network computes while it reads: states, gates, surprisal, and the units that track a property."""
