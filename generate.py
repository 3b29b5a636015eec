#!/usr/bin/env python
"""`lm generate`, without installing anything."""

from lm.cli.start import script

script("generate")
