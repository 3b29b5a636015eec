"""Presets consist of valid settings."""

import pytest

from lm.config.presets import PRESETS, preset
from lm.config.schema import RunConfig
from lm.errors import UserError


def test_presets_contain_valid_settings():
    for name in PRESETS:
        RunConfig.from_flat(preset(name))
    with pytest.raises(UserError, match=r"--preset must be one of .*did you mean 'words'\?$"):
        preset("word")
