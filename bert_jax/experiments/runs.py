"""Starts a run of either kind from Python, and says whether it has finished."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bert_jax.config import FinetuningConfig, PretrainingConfig, TrainingConfig, from_config_dict, with_overrides
from bert_jax.config.files import config_file_values
from bert_jax.finetuning.run import finetune
from bert_jax.interop import huggingface
from bert_jax.pretraining.run import pretrain, with_architecture
from bert_jax.training import workdir as workdirs
from bert_jax.training.result import RunResult


def run(config: TrainingConfig | str, workdir: Path, overrides: Mapping[str, Any] | None = None) -> RunResult:
    """Does whatever of a run is not yet done.

    Args:
      config: a `PretrainingConfig` or a `FinetuningConfig`, or a config file as `read_config_file` takes it.
      workdir: the folder of the run; an interrupted run in it goes on.
      overrides: the values by dotted key that replace those of the config, as in `bert_jax.config.with_overrides`.

    Raises:
      UserError: the config or the data cannot be used, or the loss is not finite.
      Interrupted: by SIGINT or SIGTERM, after saving.
    """
    if isinstance(config, str):
        config = read_config_file(config)
    config = with_overrides(config, overrides or {})
    if isinstance(config, PretrainingConfig):
        return pretrain(config, workdir)
    assert isinstance(config, FinetuningConfig)
    return finetune(config, workdir)


def finished(config: TrainingConfig, workdir: Path) -> RunResult | None:
    """Returns the result of the run in `workdir` if it is that very run, complete and with its model, else None."""
    if isinstance(config, PretrainingConfig) and (workdir / workdirs.FINISHED_FILE).exists():
        config = with_architecture(config)
    result = workdirs.finished(config, workdir)
    return result if result and huggingface.has_weights(result.model) else None


def read_config_file(file: str) -> TrainingConfig:
    """Returns the config of a file of configs/, such as "configs/finetune/glue.py:mrpc".

    Raises:
      UserError: the file cannot be read, or a key in it is unknown or has a value that is not allowed.
    """
    values = config_file_values(file)
    return from_config_dict(FinetuningConfig if "task" in values else PretrainingConfig, values)
