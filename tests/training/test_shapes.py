"""The shapes and types in annotations are those that functions take and give."""

import dataclasses
import functools

import beartype
import flax.linen as nn
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from helpers.random_model import CONFIG

from bert_jax.inference import compute
from bert_jax.model import heads
from bert_jax.model.attention import MultiHeadAttention
from bert_jax.model.embeddings import Embeddings
from bert_jax.model.encoder import Bert, Encoder, EncoderLayer, Pooler, PositionwiseFeedForward
from bert_jax.model.inputs import Inputs
from bert_jax.model.intermediates import Intermediates
from bert_jax.model.kernels import cudnn, plain, splash
from bert_jax.model.layers import Dropout, gelu, product_in_float32
from bert_jax.model.pattern import AttentionPattern
from bert_jax.pretraining import masking
from bert_jax.runtime.execution import Execution
from bert_jax.training import losses

jaxtyped = jaxtyping.jaxtyped(typechecker=beartype.beartype)


def fields_of(kind: type) -> type:
    """Returns a dataclass with the fields of another, for jaxtyping changes the class that it checks."""
    return dataclasses.make_dataclass(kind.__name__, [(field.name, field.type) for field in dataclasses.fields(kind)])


def inputs_of(*shape):
    return Inputs(*(jnp.ones(shape, jnp.int32) for _ in range(4)))


LOGITS, LABELS, NUMBERS = np.zeros((2, 3, 5), np.float32), np.ones((2, 3), np.int32), np.zeros(4, np.float32)
HEADS, MASK = np.zeros((2, 4, 3, 8), np.float32), np.ones((2, 1, 4, 4), bool)
IDS, LONG_HEADS, LONG_IDS = np.ones((2, 4), np.int32), np.zeros((2, 128, 3, 8), np.float32), np.ones((2, 128), np.int32)
STATES = np.zeros((2, 4, CONFIG.hidden_size), np.float32)
FULL, HERE, ELSEWHERE = AttentionPattern(), Execution(), Execution("bfloat16", "gpu", 9.0, ahead_of_time=True)
HALVES, SEGMENTS = HEADS.astype(jnp.bfloat16), (LABELS, np.ones((2, 4), np.int32))
ROW, FLAGS, PLACES, USED = IDS[0], np.ones(4, bool), np.arange(4, dtype=np.int32), np.ones(4, bool)
KEY, DRAW, HIDE = jax.random.key(0), {"mask_rate": 0.15, "sequences": 1}, {"mask_id": 4, "vocab_size": 99}


def case(function, right, wrong, **settings):
    return pytest.param(function, right, wrong, settings, id=f"{function.__module__}.{function.__qualname__}")


CASES = [
    case(losses.cross_entropy, (LOGITS, LABELS), (LOGITS, LABELS[:1])),
    case(losses.cross_entropy, (LOGITS[0], LABELS[0]), (LOGITS, LABELS.astype(np.float32))),
    case(losses.accuracy, (LOGITS, LABELS), (LOGITS, LABELS[..., None])),
    case(losses.weighted_cross_entropy, (LOGITS, LABELS, 0.1, ()), (LOGITS, LABELS, 0.1, 1)),
    case(losses.binary_cross_entropy, (LOGITS, LOGITS), (LOGITS, LOGITS[..., :4])),
    case(losses.squared_error, (NUMBERS, NUMBERS), (NUMBERS, NUMBERS[:, None])),
    case(
        losses.span_cross_entropy,
        (LOGITS[0], LOGITS[0], LABELS[0], LABELS[0]),
        (LOGITS[0], LOGITS[0], LABELS[0], LABELS),
    ),
    case(plain.scaled_dot_product_attention, (HEADS, HEADS, HEADS, MASK), (HEADS, HEADS, HEADS[:, :3], MASK)),
    case(plain.scaled_dot_product_attention, (HEADS, HEADS, HEADS, MASK[:1]), (HEADS, HEADS, HEADS, MASK[..., :3])),
    case(plain.prepare, (IDS, 1, FULL), (ROW, 1, FULL)),
    case(plain.attend, (HEADS, HEADS, HEADS, MASK, HERE), (HEADS, HEADS, HEADS, MASK[..., :3], HERE)),
    case(splash.prepare, (IDS, 1, FULL), (IDS.astype(np.float32), 1, FULL)),
    case(
        splash.attend,
        (LONG_HEADS, LONG_HEADS, LONG_HEADS, LONG_IDS, HERE),
        (LONG_HEADS, LONG_HEADS, LONG_HEADS, IDS, HERE),
        interpret=True,
    ),
    case(cudnn.prepare, (IDS, 1, FULL), (ROW, 1, FULL)),
    case(cudnn.prepare, (IDS, 2, FULL), (IDS, 2.0, FULL)),
    case(
        cudnn.attend, (HALVES, HALVES, HALVES, SEGMENTS, ELSEWHERE), (HALVES, HALVES, HALVES[:1], SEGMENTS, ELSEWHERE)
    ),
    case(cudnn.attend, (HALVES, HALVES, HALVES, (ROW[:2],), ELSEWHERE), (HALVES, HALVES, HALVES, (ROW,), ELSEWHERE)),
    case(AttentionPattern.mask, (FULL, IDS), (FULL, ROW)),
    case(gelu, (LOGITS,), (LABELS,)),
    case(product_in_float32, ("bqc,bkc->bqk", HALVES[0], HALVES[0]), ("bqc,bkc->bqk", HALVES[0], LABELS)),
    case(fields_of(Inputs), (IDS, IDS, IDS, IDS), (IDS, IDS, IDS[:, :3], IDS)),
    case(fields_of(Inputs), (LONG_HEADS.astype(np.int32),) * 4, (STATES,) * 4),
    case(
        fields_of(Intermediates),
        (STATES, STATES[None], MASK[None].astype(np.float32)),
        (STATES, STATES, MASK[None].astype(np.float32)),
    ),
    case(Inputs.unpacked, (IDS, IDS[:, 0], IDS[:, 0]), (IDS, IDS, IDS[:, 0])),
    case(masking.choose_positions, (KEY, ROW, FLAGS, None), (KEY, ROW, FLAGS[:3], None), **DRAW),
    case(masking.choose_positions, (KEY, ROW, FLAGS, FLAGS), (KEY, ROW, FLAGS, ROW), **DRAW),
    case(masking.hide_tokens, (KEY, ROW, PLACES, USED), (KEY, ROW, PLACES[:3], USED), **HIDE),
]


def on_device(values):
    return jax.tree.map(lambda value: jnp.asarray(value) if isinstance(value, np.ndarray) else value, values)


def evaluated(function, *arguments):
    """Returns what a function gives, in shapes alone where it wants a machine that is not here."""
    return jax.eval_shape(lambda: function(*arguments)) if ELSEWHERE in arguments else function(*arguments)


@pytest.mark.slow
@pytest.mark.parametrize(("function", "right", "wrong", "settings"), CASES)
def test_annotations_tell_right_shapes_from_wrong_ones(function, right, wrong, settings):
    checked = functools.partial(jaxtyped(function), **settings)
    evaluated(checked, *on_device(right))
    with pytest.raises(jaxtyping.TypeCheckError):
        evaluated(checked, *on_device(wrong))


# ---- networks ------------------------------------------------------------------------------------

TOKENS = STATES.reshape(-1, CONFIG.hidden_size)
STARTS, MASKED = IDS[:, :1], IDS[:, :3]
NETWORKS = [
    (Embeddings(CONFIG), (inputs_of(2, 4),), (IDS,), {"deterministic": True}),
    (MultiHeadAttention(CONFIG), (TOKENS, MASK, 4), (STATES, MASK, 4), {"deterministic": True}),
    (PositionwiseFeedForward(CONFIG), (TOKENS,), (STATES,), {}),
    (EncoderLayer(CONFIG, length=4), (TOKENS, MASK), (STATES, MASK), {}),
    (Encoder(CONFIG), (STATES, IDS), (STATES, IDS[:1]), {"deterministic": True}),
    (Pooler(CONFIG), (STATES, STARTS), (STATES, STARTS[:1]), {}),
    (Bert(CONFIG), (inputs_of(2, 4),), (IDS,), {}),
    (Dropout(0.5), (TOKENS, True), (LABELS, True), {}),
    (heads.MaskedLanguageModelHead(CONFIG), None, (Bert(CONFIG), STATES, MASKED[:1]), {}),
    (
        heads.BertForPreTraining(CONFIG),
        (inputs_of(2, 4),),
        (inputs_of(2, 4),),
        {"sequence_starts": (STARTS, STARTS), "masked_positions": (MASKED, MASKED[:1])},
    ),
    (heads.BertForMaskedLM(CONFIG), (inputs_of(2, 4),), (inputs_of(2, 4),), {"masked_positions": (MASKED, ROW)}),
    (
        heads.BertForNextSentencePrediction(CONFIG),
        (inputs_of(2, 4),),
        (inputs_of(2, 4),),
        {"sequence_starts": (STARTS, ROW)},
    ),
    (
        heads.BertForSequenceClassification(CONFIG, 3),
        (inputs_of(2, 4),),
        (inputs_of(2, 4),),
        {"sequence_starts": (STARTS, STARTS[0])},
    ),
    (heads.BertForMultipleChoice(CONFIG), (inputs_of(2, 3, 4),), (IDS,), {}),
    (heads.BertForTokenClassification(CONFIG, 3), (inputs_of(2, 4),), (IDS,), {}),
    (heads.BertForQuestionAnswering(CONFIG), (inputs_of(2, 4),), (IDS,), {}),
]


def check_edges(next_function, arguments, settings, context):
    """Checks the call of a module of the model against its annotations, and so each module within another."""
    if not type(context.module).__module__.startswith("bert_jax") or context.method_name == "setup":
        return next_function(*arguments, **settings)
    method = getattr(type(context.module), context.method_name)

    @functools.wraps(method)
    def call(self, *arguments, **settings):
        return next_function(*arguments, **settings)

    return jaxtyped(call)(context.module, *arguments, **settings)


def run_checked(network, arguments, settings):
    with nn.intercept_methods(check_edges):
        return jax.eval_shape(lambda: network.init(KEY, *on_device(arguments), **on_device(settings)))


@pytest.mark.parametrize(
    ("network", "right", "wrong", "settings"), NETWORKS, ids=[type(network[0]).__name__ for network in NETWORKS]
)
def test_every_edge_of_a_network_has_the_shapes_of_its_annotations(network, right, wrong, settings):
    """Settings with two values have a right and a wrong one."""
    choose = lambda index: {  # noqa: E731
        name: value[index] if isinstance(value, tuple) else value for name, value in settings.items()
    }
    if right is not None:  # the head of the masked LM is called within the networks that have it
        run_checked(network, right, choose(0))
    with pytest.raises(jaxtyping.TypeCheckError):
        run_checked(network, wrong, choose(1))


def test_what_answers_are_made_of_has_the_shapes_of_its_annotations():
    network = heads.BertForPreTraining(CONFIG)
    init = functools.partial(network.init, KEY, inputs_of(2, 4), sequence_starts=STARTS, masked_positions=MASKED)
    params = jax.eval_shape(init)["params"]
    batch = {"ids": IDS, "lengths": IDS[:, 0], "firsts": IDS[:, 0], "masked": MASKED, "targets": IDS[:, 0]}
    bert, masked_lm = Bert(CONFIG), heads.BertForMaskedLM(CONFIG)
    calls = [
        (compute.top_tokens, masked_lm, {"top_k": 5}),
        (compute.log_probability, masked_lm, {}),
        (compute.next_sentence_probability, heads.BertForNextSentencePrediction(CONFIG), {}),
        (compute.states, bert, {"pooled": True}),
        (compute.states, bert, {"pooled": False}),
        (compute.intermediates, bert, {}),
        *((compute.vectors, bert, {"pooling": name, "normalize": True}) for name in ("mean", "cls", "pooler")),
    ]
    for function, module, settings in calls:
        run = functools.partial(jaxtyped(function), module, **settings)
        jax.eval_shape(run, params, batch)
        with pytest.raises(jaxtyping.TypeCheckError):
            jax.eval_shape(run, params, {name: np.float32(values) for name, values in batch.items()})
