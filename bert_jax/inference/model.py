"""A loaded model that answers: masked words, sentence pairs, vectors, classes, tags, answers, fluency."""

from bert_jax.inference.intermediates import Inspector
from bert_jax.inference.language_model import LanguageModel
from bert_jax.inference.task_heads import TaskHeads


class Model(LanguageModel, Inspector, TaskHeads):
    """Answers on this machine's devices; `bert_jax.load` makes one.

    What it can say depends on its heads: `fill_mask`, `pseudo_perplexity` and `next_sentence` need those of
    pre-training, `classify`, `tag` and `answer` those of fine-tuning; `encode`, `embed`, `attentions` and
    `hidden_states` need the body alone. A call without the head that it needs raises a `UserError` that names the
    heads there are.

    Each method that ends in ``_batch`` takes many inputs of any lengths, runs those of like lengths together, and
    returns an answer or a `UserError` for each, in their order; the method without that ending raises the error.
    """
