"""Finds text, turns it into a token stream on disk, and cuts the stream into batches."""
