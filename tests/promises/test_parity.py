"""Training against PyTorch and `transformers`: a hundred optimizer steps, and dropout by its statistics."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
import transformers
from safetensors.numpy import load_file

from bert_jax.config import DataConfig, ModelConfig, OptimizerConfig, ScheduleConfig, TrainingConfig
from bert_jax.interop import huggingface
from bert_jax.interop.layout import Pretrained
from bert_jax.model.heads import BertForPreTraining
from bert_jax.model.inputs import Inputs
from bert_jax.model.intermediates import apply_and_collect
from bert_jax.pretraining.objective import PretrainingObjective
from bert_jax.text.tokenizer import SPECIAL_TOKENS, Tokenizer
from bert_jax.training.objective import Batch
from bert_jax.training.optimizer import make_optimizer
from bert_jax.training.step import TrainState, make_train_step, row_keys, stream_key

pytestmark = [pytest.mark.slow, pytest.mark.torch]

# Ours is float32 and PyTorch's float64, so these bound how far rounding (6e-8 an operation) may grow in a hundred
# steps that each build on the last. A wrong term moves at least one of them by more. Not to be loosened.
CURVE_TOLERANCE = 1e-3  # relative, of the loss and the gradient norm at every single step
PARAMETER_TOLERANCE = 1e-4  # of each tensor's norm, after the last step
MOMENT_TOLERANCE = 1e-3  # the same; a gradient is a sum in which digits cancel

STEPS, WARMUP, SEED = 100, 10, 7
# Tokens of the rows of each batch; the batches take turns. An empty row, as packing leaves them, has no labels.
LENGTHS = [[17, 11, 4, 8, 14], [16, 17, 9, 13, 5], [12, 3, 17, 0, 10]]
WIDTH = 17

TOKENIZER = Tokenizer.from_vocabulary([*SPECIAL_TOKENS, *(f"word{number}" for number in range(94))])
MODEL = ModelConfig(
    vocab_size=99,
    hidden_size=48,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=80,
    max_position_embeddings=40,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
)
OBJECTIVE = PretrainingObjective(
    MODEL, DataConfig(length=WIDTH), TOKENIZER.special_ids, TOKENIZER.mask_id, tuple(TOKENIZER.is_continuation.tolist())
)


@pytest.fixture(scope="module")
def params() -> dict:
    """As BERT draws them, and noise everywhere: no bias can hide at 0 and no scale at 1."""
    rng = np.random.default_rng(0)
    fresh = jax.jit(OBJECTIVE.init)(jax.random.key(0))
    return jax.tree.map(lambda leaf: leaf + rng.normal(0.0, 0.1, leaf.shape).astype(np.float32), fresh)


@pytest.fixture(scope="module", autouse=True)
def one_torch_thread() -> Iterator[None]:
    """The model is too small to share out; on a busy machine PyTorch's threads would mostly wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def in_their_names(tree: dict, directory: Path) -> dict[str, np.ndarray]:
    """Returns a tree shaped like the parameters as `transformers` names and lays out its tensors."""
    huggingface.save(directory, Pretrained(tree, MODEL), TOKENIZER)
    return load_file(directory / huggingface.WEIGHTS_FILE)


def their_model(params: dict, directory: Path, **dropout: float) -> transformers.BertForPreTraining:
    """Our weights in their model in train() mode; `dropout` are fields of both our config and theirs."""
    huggingface.save(directory, Pretrained(params, dataclasses.replace(MODEL, **dropout)), TOKENIZER)
    model = transformers.BertForPreTraining.from_pretrained(directory, attn_implementation="eager")
    return model.train()


def as_indices(array: np.ndarray) -> torch.Tensor:
    return torch.tensor(np.asarray(array), dtype=torch.long)


# ---- a hundred steps -----------------------------------------------------------------------------


class Run(NamedTuple):
    """Holds what a training run leaves; tensors by their names in `transformers`."""

    losses: list[float]
    gradient_norms: list[float]
    params: dict[str, np.ndarray]
    mean: dict[str, np.ndarray]  # Adam's first moment
    square: dict[str, np.ndarray]  # and second


def raw_batches() -> list[Batch]:
    """[CLS] a [SEP] b [SEP] [PAD]... with the labels of next-sentence prediction; one batch for each of `LENGTHS`."""
    rng = np.random.default_rng(1)
    batches = []
    for lengths in np.array(LENGTHS)[..., None]:
        column = np.arange(WIDTH)
        inside = column < lengths
        ids = rng.integers(len(SPECIAL_TOKENS), MODEL.vocab_size, inside.shape)
        ids = np.where((column == lengths // 2) | (column == lengths - 1), TOKENIZER.sep_id, ids)
        ids = np.where(column == 0, TOKENIZER.cls_id, ids)
        batch = {
            "input_ids": np.where(inside, ids, TOKENIZER.pad_id),
            "token_type_ids": inside & (column > lengths // 2),
            "position_ids": np.where(inside, column, 0),
            "sequence_ids": inside,
            "next_sentence_labels": np.where(lengths > 0, rng.integers(0, 2, lengths.shape), -1),
        }
        batches.append({name: jnp.asarray(value, jnp.int32) for name, value in batch.items()})
    return batches


def our_run(config: OptimizerConfig, params: dict, directory: Path) -> Run:
    """Runs the project's own jitted step."""
    schedule = ScheduleConfig("linear", warmup=float(WARMUP))
    training = TrainingConfig(seed=SEED, total_steps=STEPS, batch_size=5, optimizer=config, schedule=schedule)
    optimizer = make_optimizer(config)
    step = jax.jit(make_train_step(OBJECTIVE, optimizer, training))
    state = TrainState(jnp.int32(0), params, optimizer.init(params))
    batches, losses, norms = raw_batches(), [], []
    for number in range(STEPS):
        state, metrics = step(state, batches[number % len(batches)], STEPS)
        losses.append(sum(float(metrics[name].total / metrics[name].count) for name in OBJECTIVE.losses))
        norms.append(float(metrics["gradient_norm"].total))
    moments = (optax.tree_utils.tree_get(state.opt_state, name) for name in ("mu", "nu"))
    return Run(losses, norms, *(in_their_names(tree, directory) for tree in (state.params, *moments)))


class PlainOptimizer(torch.optim.Optimizer):
    """Adds what PyTorch lacks: `optimization.py` of google-research/bert, and LAMB (You et al. 2020, algorithm 2)."""

    def __init__(self, groups: list[dict], lr: float, betas: tuple[float, float], eps: float, *, lamb: bool):
        super().__init__(groups, dict(lr=lr, betas=betas, eps=eps, lamb=lamb))

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                self._update(parameter, self.state[parameter], **group)

    def _update(self, parameter, state, *, lr, betas, eps, lamb, weight_decay, **_) -> None:
        (b1, b2), gradient = betas, parameter.grad
        steps = state["step"] = state.get("step", 0) + 1
        m = state["exp_avg"] = b1 * state.get("exp_avg", 0) + (1 - b1) * gradient
        v = state["exp_avg_sq"] = b2 * state.get("exp_avg_sq", 0) + (1 - b2) * gradient**2
        if lamb:
            m, v = m / (1 - b1**steps), v / (1 - b2**steps)
        update = m / (v.sqrt() + eps) + weight_decay * parameter
        if lamb and weight_decay:
            update *= parameter.norm() / update.norm()
        parameter -= lr * update


def their_optimizer(config: OptimizerConfig, model: torch.nn.Module) -> torch.optim.Optimizer:
    decayed, spared = [], []
    for name, parameter in model.named_parameters():
        (spared if name.endswith("bias") or "LayerNorm" in name else decayed).append(parameter)
    groups = [dict(params=decayed, weight_decay=config.weight_decay), dict(params=spared, weight_decay=0.0)]
    settings = dict(lr=config.learning_rate, betas=(config.b1, config.b2), eps=config.eps)
    if config.name == "adamw":
        return torch.optim.AdamW(groups, **settings)
    return PlainOptimizer(groups, **settings, lamb=config.name == "lamb")


@jax.jit
def masked(batch: Batch, step: int) -> Batch:
    """Returns the batch as our step number `step` masks it for itself."""
    return OBJECTIVE.prepare(batch, row_keys(stream_key(SEED, "prepare", step), batch), training=True)


def their_arguments(batch: Batch) -> dict[str, torch.Tensor]:
    """Returns a masked batch as `transformers` takes it, with the labels of both losses."""
    batch = {name: np.asarray(value) for name, value in batch.items()}
    labels = np.full(batch["input_ids"].shape, -100)
    row, slot = np.nonzero(batch["labels"] >= 0)
    labels[row, batch["positions"][row, slot]] = batch["labels"][row, slot]
    next_sentence = batch["next_sentence_labels"][:, 0]
    arguments = {
        "input_ids": batch["input_ids"],
        "token_type_ids": batch["token_type_ids"],
        "attention_mask": batch["sequence_ids"] > 0,
        "labels": labels,
        "next_sentence_label": np.where(next_sentence >= 0, next_sentence, -100),
    }
    return {name: as_indices(value) for name, value in arguments.items()}


def their_run(config: OptimizerConfig, model: transformers.BertForPreTraining) -> Run:
    """Runs the same in PyTorch and float64: its losses, clipping and learning-rate scheduler."""
    model = model.double()
    # Their table has no gradient at [PAD], which a masked position may draw as its random token.
    model.bert.embeddings.word_embeddings.padding_idx = None
    optimizer = their_optimizer(config, model)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: (step + 1) / WARMUP if step < WARMUP else (STEPS - step) / (STEPS - WARMUP)
    )
    batches, losses, norms = raw_batches(), [], []
    for step in range(STEPS):
        optimizer.zero_grad()
        loss = model(**their_arguments(masked(batches[step % len(batches)], step))).loss
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm).item())
        optimizer.step()
        scheduler.step()
        losses.append(loss.item())
    tensors = {name: parameter.detach().numpy() for name, parameter in model.named_parameters()}
    moments = (
        {name: optimizer.state[parameter][moment].numpy() for name, parameter in model.named_parameters()}
        for moment in ("exp_avg", "exp_avg_sq")
    )
    return Run(losses, norms, tensors, *moments)


def errors(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> dict[str, float]:
    """Distance of each pair of tensors as a share of their norm."""
    assert ours.keys() == theirs.keys()
    # A bias of the keys shifts all scores of a query alike, which softmax ignores: its gradient is rounding and its
    # moments have no scale of their own. It is measured by the other half of the key projection, the weights.
    scales = {name: np.linalg.norm(theirs[name.replace("key.bias", "key.weight")]) for name in theirs}
    return {name: np.linalg.norm(ours[name] - theirs[name]) / scales[name] for name in theirs}


@pytest.mark.parametrize(
    "config",
    [
        OptimizerConfig("bert_adamw", learning_rate=1e-3, weight_decay=0.1),
        OptimizerConfig("adamw", learning_rate=3e-3, weight_decay=0.1),
        OptimizerConfig("lamb", learning_rate=5e-3, weight_decay=0.1),
        OptimizerConfig("adamw", learning_rate=3e-3, weight_decay=0.1, b2=0.98, eps=1e-4, clip_norm=5.0),
    ],
    ids=["bert_adamw", "adamw", "lamb", "adamw_clipped_at_times"],
)
def test_a_hundred_steps_equal_pytorch(config: OptimizerConfig, params: dict, tmp_path: Path) -> None:
    theirs = their_run(config, their_model(params, tmp_path))
    ours = our_run(config, params, tmp_path)
    np.testing.assert_allclose(ours.losses, theirs.losses, rtol=CURVE_TOLERANCE)
    np.testing.assert_allclose(ours.gradient_norms, theirs.gradient_norms, rtol=CURVE_TOLERANCE)
    tolerances = {"params": PARAMETER_TOLERANCE, "mean": MOMENT_TOLERANCE, "square": MOMENT_TOLERANCE}
    for name, tolerance in tolerances.items():
        distances = errors(getattr(ours, name), getattr(theirs, name))
        assert {tensor: error for tensor, error in distances.items() if not error <= tolerance} == {}, name
    # A comparison of runs in which little happens would say little.
    turns = len(LENGTHS)
    assert np.mean(theirs.losses[-turns:]) < 0.8 * np.mean(theirs.losses[:turns])
    clipped = np.mean(np.array(theirs.gradient_norms) > config.clip_norm)
    assert clipped == 1 if config.clip_norm == 1 else 0.2 < clipped < 0.8


# ---- dropout -------------------------------------------------------------------------------------

DRAWS = 2_000  # rows of one batch, all alike, so that they differ by dropout alone
TOKENS = 11  # of such a row; the rest is padding
RELABELLINGS = 999

HIDDEN = dict(hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.0)
ATTENTION = dict(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.1)
BOTH = dict(hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1)


class Draws(NamedTuple):
    """Holds what comes out for the row's own tokens, draw by draw."""

    embedded: np.ndarray  # [N, TOKENS, D], behind the first dropout
    logits: np.ndarray  # [N, TOKENS * V + 2], of both heads


def the_row(draws: int) -> dict[str, np.ndarray]:
    inside = np.broadcast_to(np.arange(WIDTH) < TOKENS, (draws, WIDTH))
    ids = np.random.default_rng(2).integers(1, MODEL.vocab_size, WIDTH)
    return {
        "input_ids": np.where(inside, ids, TOKENIZER.pad_id),
        "token_type_ids": inside & (np.arange(WIDTH) >= 6),
        "attention_mask": inside,
    }


def our_draws(params: dict, draws: int = DRAWS, **dropout: float) -> Draws:
    """Without dropout unless given."""
    network = BertForPreTraining(dataclasses.replace(MODEL, **dropout))
    row = {name: jnp.asarray(value, jnp.int32) for name, value in the_row(draws).items()}
    positions = jnp.broadcast_to(jnp.arange(WIDTH), (draws, WIDTH))
    starts = jnp.zeros((draws, 1), jnp.int32)

    @jax.jit
    def run(params: dict, key: jax.Array) -> tuple:
        return apply_and_collect(
            network,
            params,
            Inputs(row["input_ids"], row["token_type_ids"], positions, row["attention_mask"]),
            sequence_starts=starts,
            masked_positions=positions[:, :TOKENS],
            deterministic=not dropout,
            rngs={"dropout": key},
        )

    (mlm, nsp), states = run(params, jax.random.key(0))
    embedded = np.asarray(states.embedded)
    return Draws(embedded[:, :TOKENS], np.concatenate([mlm.reshape(draws, -1), nsp[:, 0]], axis=1))


def their_draws(model: transformers.BertForPreTraining) -> Draws:
    torch.manual_seed(0)
    with torch.no_grad():
        row = {name: as_indices(value) for name, value in the_row(DRAWS).items()}
        output = model(**row, output_hidden_states=True)
    mlm = output.prediction_logits[:, :TOKENS].reshape(DRAWS, -1)
    return Draws(
        output.hidden_states[0][:, :TOKENS].numpy(),
        torch.cat([mlm, output.seq_relationship_logits], dim=1).numpy(),
    )


def distance_and_chance(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float]:
    """Distance of two means over draws [N, X], and the largest distance found when the draws change sides at random.

    If both sides draw from one distribution, the first exceeds the second with probability 1 / (RELABELLINGS + 1),
    whatever that distribution is and however its components depend on each other (Fisher's permutation test).
    """
    pooled = np.concatenate([ours, theirs])
    sides = np.repeat([1.0, -1.0], DRAWS).astype(np.float32) / DRAWS
    relabelled = np.random.default_rng(3).permuted(np.tile(sides, (RELABELLINGS, 1)), axis=1)
    return np.linalg.norm(sides @ pooled), np.linalg.norm(relabelled @ pooled, axis=1).max()


@pytest.mark.parametrize("dropout", [HIDDEN, ATTENTION, BOTH], ids=["hidden", "attention", "both"])
def test_dropout_moves_the_output_as_in_pytorch(dropout: dict, params: dict, tmp_path: Path) -> None:
    ours = our_draws(params, **dropout).logits
    theirs = their_draws(their_model(params, tmp_path, **dropout)).logits
    pooled = np.concatenate([ours, theirs])
    standard = [(draws - pooled.mean(axis=0)) / pooled.std(axis=0) for draws in (ours, theirs)]
    distance, chance = distance_and_chance(*standard)
    assert distance <= chance, "mean"
    distance, chance = distance_and_chance(*np.square(standard))
    assert distance <= chance, "variance"


def test_dropout_of_the_embeddings_in_the_open(params: dict, tmp_path: Path) -> None:
    """The one place whose zeros are seen from outside; `test_model.py` opens the others."""
    expected = our_draws(params, draws=1).embedded / 0.9
    for draws in our_draws(params, **HIDDEN), their_draws(their_model(params, tmp_path, **HIDDEN)):
        kept = draws.embedded != 0
        assert abs(kept.mean() - 0.9) < 5 * np.sqrt(0.1 * 0.9 / kept.size)
        np.testing.assert_allclose(draws.embedded, np.where(kept, expected, 0), rtol=1e-5, atol=1e-5)
