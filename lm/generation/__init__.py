"""Choosing the next token: samplers (pure functions on logits) and the decoder's loop."""
