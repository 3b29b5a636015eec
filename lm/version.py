"""The version of lm."""

__version__ = "0.1.0"
