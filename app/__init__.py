"""The web page: one file a tab, thin over lm. Start it with `python -m app`."""
