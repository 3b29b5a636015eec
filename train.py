#!/usr/bin/env python
"""`lm train`, without installing anything."""

from lm.cli.start import script

script("train")
