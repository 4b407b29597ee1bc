"""A model whose numbers overflow answers with an error, and never with NaN or infinity."""

import jax
import numpy as np
import pytest
from helpers.random_model import random_model, tokenizer

from bert_jax.errors import UserError
from bert_jax.inference.model import Model


def overflowing(architecture, labels=()):
    """Finite weights, such as a file may hold, whose products are not."""
    model = random_model(architecture=architecture, labels=labels)
    model.params.update(jax.tree.map(lambda leaf: np.full_like(leaf, 3e38), model.params))
    return Model(model, tokenizer())


@pytest.mark.parametrize(
    ("architecture", "labels", "calls"),
    [
        (
            "BertForPreTraining",
            (),
            [
                lambda model: model.embed(["the film"]),
                lambda model: model.fill_mask("the [MASK]"),
                lambda model: model.pseudo_perplexity("the film"),
            ],
        ),
        ("BertForSequenceClassification", ("bad", "good"), [lambda model: model.classify(["the film"])]),
        ("BertForQuestionAnswering", (), [lambda model: model.answer("the film", "a good film")]),
    ],
)
def test_no_answer_is_given(architecture, labels, calls):
    model = overflowing(architecture, labels)
    for call in calls:
        with pytest.raises(UserError, match="numbers that are not finite"):
            call(model)
