"""Applies the data settings of a training run to another text, where they fit."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from lm.data import reading
from lm.data.source import Source
from lm.errors import DataError

# In this order: the rows of a table are found before the text in them.
TAKEN_OVER = ("encoding", "header", "json_field", "text_column", "document_separator")


def as_trained(source: Source, split: str, training: Mapping[str, Any]) -> tuple[Source, dict[str, Any]]:
    """The source with those settings of the training that fit the files of a split, and these settings.

    `training` has settings by their names, those of TAKEN_OVER or fewer. The files must be on this disk.
    """
    taken: dict[str, Any] = {}
    for name in TAKEN_OVER:
        if name in training:
            config = dataclasses.replace(source.config, **{name: training[name]})
            changed = dataclasses.replace(source, config=config)
            if _fits(changed, split, name):
                source, taken[name] = changed, training[name]
    return source, taken


def _fits(source: Source, split: str, name: str) -> bool:
    """Whether the files can be read with the setting `name` of this source."""
    if not source.takes(name) or name in ("document_separator", "header"):
        return source.takes(name)
    if name == "encoding":  # a file that is valid without it would be read wrongly
        return not any(map(reading.is_decodable, source.files[split]))
    try:
        source.probe(split)
    except DataError:  # even for a damaged file, which reading all of it will report
        return False
    return True
