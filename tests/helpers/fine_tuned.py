"""Models with a random head."""

import dataclasses

import jax
import numpy as np
from helpers import random_model

from bert_jax.config import HeadSettings, ModelConfig
from bert_jax.inference.model import Model
from bert_jax.interop.layout import Pretrained
from bert_jax.tasks.objective import TaskObjective
from bert_jax.tasks.table import TASKS

CONFIG = dataclasses.replace(random_model.CONFIG, max_position_embeddings=80)


def fine_tuned(kind, labels=(), problem_type="", settings=HeadSettings(), config: ModelConfig = CONFIG):
    """A model with a random head of that kind."""
    objective = TaskObjective(TASKS[f"custom:{kind}"].kind, config, max(1, len(labels)))
    params = jax.device_get(objective.init(jax.random.key(3)))
    params = jax.tree.map(lambda x: x + np.random.default_rng(1).normal(0, 0.3, x.shape).astype(np.float32), params)
    return Model(Pretrained(params, config, labels, problem_type, settings), random_model.tokenizer())
