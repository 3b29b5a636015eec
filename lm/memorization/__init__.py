"""Text that a model has copied from its training data."""
