#!/usr/bin/env python
"""`lm generate`, without installing anything."""

from lm.cli.main import script

script("generate")
