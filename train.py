#!/usr/bin/env python
"""`lm train`, without installing anything."""

from lm.cli.main import script

script("train")
