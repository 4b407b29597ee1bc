"""Chooses a kernel by where a model runs and what it asks for."""

from bert_jax.config import ModelConfig
from bert_jax.errors import UserError
from bert_jax.model.kernels.cudnn import CUDNN
from bert_jax.model.kernels.kernel import AttentionSpec, Kernel
from bert_jax.model.kernels.plain import PLAIN
from bert_jax.model.kernels.splash import SPLASH
from bert_jax.model.pattern import AttentionPattern
from bert_jax.runtime.execution import Execution

KERNELS = {kernel.name: kernel for kernel in (PLAIN, CUDNN, SPLASH)}


def choose_kernel(
    config: ModelConfig,
    execution: Execution,
    length: int,
    max_sequences: int | None,
    *,
    dropout: bool,
    pattern: AttentionPattern = AttentionPattern(),
) -> tuple[Kernel, str]:
    """Returns the kernel of `config.attention`; for "auto", the fastest that the devices and the rows allow.

    Args:
      config: the config of the model.
      execution: the place where it runs.
      length: L, the tokens of a row.
      max_sequences: K, the most sequences that a row has; None if that is not known.
      dropout: whether probabilities are dropped.
      pattern: the rule of which positions attend to which.

    Returns:
      The kernel; and why, if it is the plain one.

    Raises:
      UserError: the kernel that `config.attention` names cannot do it.
    """
    platform, head_size = execution.platform, config.hidden_size // config.num_attention_heads
    spec = AttentionSpec(execution, length, head_size, max_sequences, dropout, pattern)
    if config.attention == "auto":
        kernel = next((kernel for kernel in KERNELS.values() if kernel.platform == platform), PLAIN)
        if kernel is PLAIN:
            return PLAIN, f"no other on {platform}"
        obstacle = kernel.obstacle(spec)
        return (PLAIN, f"not {kernel.name}: {obstacle}") if obstacle else (kernel, "")
    kernel = KERNELS[config.attention]
    if kernel is PLAIN:
        return PLAIN, "as configured"
    if kernel.platform != platform:
        obstacle = f"it runs on {kernel.platform}, and this is a {platform}"
    else:
        obstacle = kernel.obstacle(spec)
    if obstacle:
        raise UserError(f"model.attention={kernel.name} cannot be used here: {obstacle}; set it to auto")
    return kernel, ""


def describe_kernel(config: ModelConfig, execution: Execution, length: int, max_sequences: int) -> str:
    """Describes, for people, what training with these settings attends with."""
    dropout = config.attention_probs_dropout_prob > 0
    kernel, reason = choose_kernel(config, execution, length, max_sequences, dropout=dropout)
    return f"attention: {kernel.name} ({reason})" if reason else f"attention: {kernel.name}"
