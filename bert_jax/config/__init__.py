"""Declares the frozen dataclasses that every room takes, and makes them of config files.

A config file (``configs/pretrain/NAME.py``) returns an ``ml_collections.ConfigDict``; `from_config_dict` turns it into
dataclasses once. Below that line no code sees a ConfigDict, and no key can be misspelt, mistyped or left unread.
"""

from bert_jax.config.conversion import from_config_dict, to_config_dict, with_overrides
from bert_jax.config.data import CleaningConfig, DataConfig
from bert_jax.config.finetuning import FinetuningConfig, HeadSettings, TaskDataConfig
from bert_jax.config.model import SIZES, ModelConfig, model_config
from bert_jax.config.pretraining import PretrainingConfig
from bert_jax.config.training import MeshConfig, OptimizerConfig, ScheduleConfig, TrainingConfig

__all__ = [
    "SIZES",
    "CleaningConfig",
    "DataConfig",
    "FinetuningConfig",
    "HeadSettings",
    "MeshConfig",
    "ModelConfig",
    "OptimizerConfig",
    "PretrainingConfig",
    "ScheduleConfig",
    "TaskDataConfig",
    "TrainingConfig",
    "from_config_dict",
    "model_config",
    "to_config_dict",
    "with_overrides",
]
