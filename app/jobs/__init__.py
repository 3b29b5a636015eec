"""Training jobs started from the web UI."""
