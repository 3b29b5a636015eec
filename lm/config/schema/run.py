"""All settings of one training run, and which of them cannot be combined."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lm.config.schema.data import DataConfig
from lm.config.schema.model import ModelConfig
from lm.config.schema.training import BUDGETS, TrainingConfig
from lm.config.settings import check_all, check_not_empty, flag_of, settings_of
from lm.console.wording import plural
from lm.errors import UserError

GROUPS = {"data": DataConfig, "model": ModelConfig, "training": TrainingConfig}
SETTINGS = {name: setting for group in GROUPS.values() for name, setting in settings_of(group).items()}


@dataclass(frozen=True)
class RunConfig:
    """All settings of one training run."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()

    @classmethod
    def from_flat(cls, values: Mapping[str, Any], where: str = "") -> RunConfig:
        """Build and validate the settings from {'hidden_size': 256, ...}; missing ones are defaults.

        Raises UserError for an unknown name, a wrong type or a value out of range, which begins with `where`,
        the file that has them, and for settings that cannot be combined.
        """
        values = checked(values, where)
        groups = {
            group: c(**{name: values[name] for name in settings_of(c) if name in values})
            for group, c in GROUPS.items()
        }
        config = cls(**groups)
        config.check()
        return config

    def check(self) -> None:
        """Raise UserError for settings that cannot be combined."""
        data, training = self.data, self.training
        if data.mix and len(data.mix) != len(data.dataset):
            raise UserError(
                f"--mix has {len(data.mix)} proportions, but --dataset is given"
                f" {plural(len(data.dataset), 'time')}; give one proportion for each."
            )
        if data.streaming and (data.max_chars or training.epochs):
            flag = "--max-chars" if data.max_chars else "--epochs"
            raise UserError(f"{flag} needs the whole text; it cannot be combined with --streaming.")

    def flat(self) -> dict[str, Any]:
        """The settings as one flat dictionary, in the order of the groups."""
        return {k: v for group in GROUPS for k, v in dataclasses.asdict(getattr(self, group)).items()}


def _check_budget(values: Mapping[str, Any]) -> None:
    budgets = [name for name in BUDGETS if values.get(name)]
    if len(budgets) > 1:
        flags = " and ".join(map(flag_of, budgets))
        raise UserError(f"{flags} cannot be combined; choose one budget.")


def checked(values: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """The settings, each converted and validated by itself. Raises UserError as `from_flat` does, also for
    several budgets."""
    try:
        converted = check_all(SETTINGS, values)
        check_not_empty(converted)
        _check_budget(converted)
    except UserError as error:
        raise UserError(f"{where}: {error}" if where else str(error)) from error
    return converted
