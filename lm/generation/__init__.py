"""Text generation: decoders, samplers, constraints, and the scheduler that batches sequences."""
