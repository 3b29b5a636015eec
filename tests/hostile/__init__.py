"""Hostile input: model folders that anyone may have made."""
