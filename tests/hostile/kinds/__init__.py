"""About 300 kinds of hostile model folders, each a small change to a good one.

`KINDS` maps the name of each to the function that makes it from a good folder, and to what `lm.load` says: a
part of its message, or None if the model is sound where it matters, so that it loads.
"""

from tests.hostile.kinds import config, files, tokenizer, weights

KINDS = config.KINDS | weights.KINDS | tokenizer.KINDS | files.KINDS
