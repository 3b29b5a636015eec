"""Trainings that are asked for on the page: what one may ask for, what it would take, and running it."""
