"""All settings: defaults, valid ranges and the help lines that `--help` prints.

The command line, YAML files and saved runs are all read into these dataclasses and validated here.
"""

from lm.config.schema.data import DataConfig
from lm.config.schema.evaluation import CacheConfig, DynamicConfig, EvaluationConfig
from lm.config.schema.generation import FILTERS, PENALTIES, SamplingConfig, SearchConfig
from lm.config.schema.model import AUTOMATIC_DROPOUTS, CELL_NAMES, ModelConfig
from lm.config.schema.run import GROUPS, SETTINGS, RunConfig, checked
from lm.config.schema.training import BUDGETS, DEFAULT_TIME, RUNS, TrainingConfig

__all__ = [
    "AUTOMATIC_DROPOUTS",
    "BUDGETS",
    "CELL_NAMES",
    "DEFAULT_TIME",
    "FILTERS",
    "GROUPS",
    "PENALTIES",
    "RUNS",
    "SETTINGS",
    "CacheConfig",
    "DataConfig",
    "DynamicConfig",
    "EvaluationConfig",
    "ModelConfig",
    "RunConfig",
    "SamplingConfig",
    "SearchConfig",
    "TrainingConfig",
    "checked",
]
