"""The showcase: what a visitor sees first."""
