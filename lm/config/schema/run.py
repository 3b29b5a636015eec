"""All settings of one training run, and which of them cannot be combined."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lm.config.schema.data import DataConfig
from lm.config.schema.model import ModelConfig
from lm.config.schema.training import BUDGETS, TrainingConfig
from lm.config.settings import build, did_you_mean, flag_of, settings_of
from lm.errors import UserError

GROUPS = {"data": DataConfig, "model": ModelConfig, "training": TrainingConfig}


@dataclass(frozen=True)
class RunConfig:
    """All settings of one training run."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()

    @classmethod
    def from_flat(cls, values: Mapping[str, Any], where: str = "the settings") -> RunConfig:
        """Build and validate the settings from {'hidden_size': 256, ...}; missing ones are defaults.

        Raises UserError for an unknown name, a wrong type or a value out of range.
        """
        known = {name: group for group, c in GROUPS.items() for name in settings_of(c)}
        groups: dict[str, dict[str, Any]] = {group: {} for group in GROUPS}
        for name, value in values.items():
            if name not in known:
                raise UserError(f"{where}: unknown setting '{name}'{did_you_mean(name, known)}.")
            groups[known[name]][name] = value
        config = cls(**{group: build(GROUPS[group], groups[group]) for group in GROUPS})
        config.check()
        return config

    def check(self) -> None:
        """Raises UserError for settings that cannot be combined."""
        data, training = self.data, self.training
        if data.mix and len(data.mix) != len(data.dataset):
            raise UserError(
                f"--mix has {len(data.mix)} proportions, but --dataset is given {len(data.dataset)} times;"
                " give one proportion for each."
            )
        if data.streaming and (data.max_chars or training.epochs):
            flag = "--max-chars" if data.max_chars else "--epochs"
            raise UserError(f"{flag} needs the whole text; it cannot be combined with --streaming.")
        budgets = [name for name in BUDGETS if getattr(training, name)]
        if len(budgets) > 1:
            flags = " and ".join(map(flag_of, budgets))
            raise UserError(f"{flags} cannot be combined; choose one budget.")

    def flat(self) -> dict[str, Any]:
        """The settings as one flat dictionary, in the order of the groups."""
        return {k: v for group in GROUPS for k, v in dataclasses.asdict(getattr(self, group)).items()}
