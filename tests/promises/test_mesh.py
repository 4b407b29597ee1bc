"""More devices give the same numbers; a batch that does not divide over them is an error."""

import dataclasses
import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.fine_tuned import fine_tuned
from helpers.toy import CONFIG, Toy, toy_data, train

from bert_jax.config import DataConfig, MeshConfig, model_config
from bert_jax.errors import UserError
from bert_jax.model.kernels import splash
from bert_jax.pretraining.objective import PretrainingObjective
from bert_jax.runtime.execution import Execution
from bert_jax.tasks.evaluation import Evaluator
from bert_jax.tasks.kinds.text import TextExample
from bert_jax.tasks.objective import TaskObjective
from bert_jax.tasks.table import TASKS
from bert_jax.training.forward import put
from bert_jax.training.loop import compile_evaluation
from bert_jax.training.sharding import batch_sharding, compiler_options, put_batch
from bert_jax.training.step import accumulated_gradients, row_keys, stream_key

DEVICES = 4
ROWS = {4: [1], 5: [5]}  # rows of a batch, and of a device: those of 4 divide over the devices, those of 5 do not


def bert_objective(execution: Execution = Execution()) -> PretrainingObjective:
    model = model_config("tiny", vocab_size=99, hidden_size=32, intermediate_size=64, max_position_embeddings=40)
    return PretrainingObjective(model, DataConfig(length=40), (0, 1, 2, 3, 4), 4, (False,) * 99, execution)


def bert_batch() -> dict[str, np.ndarray]:
    """Returns eight rows of very different lengths."""
    rng = np.random.default_rng(0)
    lengths = np.array([40, 5, 4, 6, 40, 4, 33, 4])[:, None]
    inside = np.arange(40) < lengths
    return {
        "input_ids": np.where(inside, rng.integers(5, 99, (8, 40)), 0).astype(np.int32),
        "token_type_ids": (inside & (np.arange(40) > lengths // 2)).astype(np.int32),
        "position_ids": np.where(inside, np.arange(40), 0).astype(np.int32),
        "sequence_ids": inside.astype(np.int32),
        "next_sentence_labels": np.array([[0], [1], [-1], [0], [1], [-1], [-1], [0]], np.int32),
    }


def bert_gradients() -> dict[str, list[float]]:
    """Returns loss counts, and the norm of each gradient of a small BERT, on all devices."""
    objective = bert_objective()
    batch = put_batch(bert_batch(), batch_sharding(Execution.here(mesh=MeshConfig()).mesh))

    @jax.jit
    def compute(params, batch):
        prepared = objective.prepare(batch, row_keys(stream_key(1, "prepare"), batch), training=True)
        return accumulated_gradients(objective, params, prepared, stream_key(1, "dropout"), 1)

    gradients, metrics = compute(objective.init(stream_key(0, "init")), batch)
    norms = [float(jnp.linalg.norm(leaf)) for leaf in jax.tree.leaves(gradients)]
    return {"norms": norms, "metrics": [float(x) for mean in sorted(metrics.items()) for x in mean[1]]}


def splash_sums() -> list[float]:
    """Returns sums over the outputs of each row, of a batch that divides over the devices and of one that does not."""
    execution = Execution.here(mesh=MeshConfig())
    keys = jax.random.split(jax.random.key(0), 3)
    inputs = [np.asarray(jax.random.normal(key, (4, 128, 2, 8))) for key in keys]
    ids = np.array([[1] * 128, [1] * 50 + [2] * 78, [1] * 3 + [2] * 100 + [0] * 25, [1] + [0] * 127], np.int32)
    attend = jax.jit(functools.partial(splash.attend, execution=execution, interpret=True))
    even = attend(*jax.device_put((*inputs, ids), batch_sharding(execution.mesh)))
    with jax.set_mesh(execution.mesh):  # as the loop does
        odd = attend(*(array[:3] for array in (*inputs, ids)))
    return [float(jnp.square(row).sum()) for rows in (even, odd) for row in rows]


def forward_answers(rows: int) -> dict[str, dict[str, list]]:
    """Returns all that goes through `training.forward`, in batches of so many rows, on all devices."""
    labels = ("no", "maybe", "yes")
    model = fine_tuned("classification", labels)
    texts = [f"the film was {word} word{number}" for number, word in enumerate(("good", "bad", "a", "actor") * 3)]
    kind = TASKS["custom:classification"].kind
    objective = TaskObjective(kind, model.config, len(labels), execution=model.execution)
    examples = [TextExample(str(number), text, None, labels[number % 3]) for number, text in enumerate(texts)]
    outcome = Evaluator(objective, model.codec(kind, labels), examples, rows).outcome(model.params)
    execution = Execution.here(mesh=MeshConfig())
    pretraining = bert_objective(execution)
    params = pretraining.init(stream_key(0, "init"))
    batches = [{name: array[start:][:rows] for name, array in bert_batch().items()} for start in (0, 8 - rows)]
    means = compile_evaluation(pretraining, params, batches, execution.mesh)(params)
    on_devices = put(np.zeros((rows, 2)), execution.mesh, divide_rows=True)
    return {
        "rows of a device": sorted({shard.data.shape[0] for shard in on_devices.addressable_shards}),
        "numbers": {
            "scores": [outcome.scores[name] for name in sorted(outcome.scores)],
            "task": [list(prediction.scores.values()) for prediction in outcome.predictions],
            "classify": [list(answer.scores.values()) for answer in model.classify(texts, batch_size=rows)],
            "embed": model.embed(texts, batch_size=rows).tolist(),
            "pretraining": [means[name] for name in sorted(means)],
        },
    }


def on_all_devices(workdir: Path) -> dict:
    """Returns everything that the process with four devices reports."""
    trained = train(Toy(), CONFIG, workdir / "run", toy_data())
    errors = []
    for change in ({"batch_size": 6}, {"accumulate": 4}, {"mesh": MeshConfig(data=2)}):
        try:
            train(Toy(), dataclasses.replace(CONFIG, **change), workdir / "bad", toy_data())
        except UserError as error:
            errors.append(str(error))
    return {
        "kernel": trained.state.params["dense"]["kernel"].tolist(),
        "evaluation": trained.evaluation,
        "errors": errors,
        "devices": jax.device_count(),
        "bert": bert_gradients(),
        "splash": splash_sums(),
        "forward": {rows: forward_answers(rows) for rows in ROWS},
    }


@pytest.fixture(scope="module")
def sharded(tmp_path_factory) -> dict:
    """Runs `on_all_devices` in a process with four virtual devices."""
    tests = Path(__file__).parents[1]
    code = (
        "import json, sys; from pathlib import Path; from promises.test_mesh import on_all_devices\n"
        "print('FOUND' + json.dumps(on_all_devices(Path(sys.argv[1]))))"
    )
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={DEVICES}"
    environment = {**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": str(tests)}
    command = [sys.executable, "-c", code, str(tmp_path_factory.mktemp("sharded"))]
    result = subprocess.run(command, env=environment, cwd=tests.parent, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.split("FOUND")[1])


@pytest.mark.slow
@pytest.mark.subprocess
def test_four_devices_train_as_one(sharded, tmp_path) -> None:
    trained = train(Toy(), CONFIG, tmp_path, toy_data())
    assert sharded["devices"] == DEVICES
    np.testing.assert_allclose(sharded["kernel"], trained.state.params["dense"]["kernel"], rtol=1e-5)
    assert sharded["evaluation"] == pytest.approx(trained.evaluation, rel=1e-5)


@pytest.mark.slow
@pytest.mark.subprocess
def test_bert_has_the_same_gradients_on_four_devices(sharded) -> None:
    """Dropout on; the rows' numbers of masked positions differ tenfold, some rows have no sentence label."""
    alone = bert_gradients()
    np.testing.assert_allclose(sharded["bert"]["metrics"], alone["metrics"], rtol=1e-5)
    # The key bias has no gradient (softmax ignores a shift): its norm is rounding.
    np.testing.assert_allclose(sharded["bert"]["norms"], alone["norms"], rtol=1e-5, atol=1e-7)


@pytest.mark.slow
@pytest.mark.subprocess
@pytest.mark.parametrize("rows", ROWS)
def test_four_devices_evaluate_and_predict_as_one(sharded, rows) -> None:
    report, alone = sharded["forward"][str(rows)], forward_answers(rows)
    assert report["rows of a device"] == ROWS[rows]
    for name, numbers in alone["numbers"].items():
        np.testing.assert_allclose(report["numbers"][name], numbers, rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.slow
@pytest.mark.subprocess
def test_splash_takes_each_device_its_rows(sharded) -> None:
    assert sharded["splash"] == pytest.approx(splash_sums(), rel=1e-5)


@pytest.mark.slow
@pytest.mark.subprocess
def test_devices_and_rows_must_fit(sharded) -> None:
    rows, accumulated, mesh = sharded["errors"]
    assert rows == (
        "batch_size=6 with accumulate=1 gives micro-batches of 6 rows, which do not divide over 4 devices: "
        "choose a multiple of 4"
    )
    assert "batch_size=8 with accumulate=4" in accumulated
    assert accumulated.endswith("choose a multiple of 16")
    assert mesh == "mesh.data=2 does not match the 4 devices here: set it to -1 or 4"


def test_several_gpus_are_told_to_hide_communication_in_words_that_xla_knows() -> None:
    mesh = lambda size, platform: SimpleNamespace(  # noqa: E731
        size=size, devices=np.array([SimpleNamespace(platform=platform)] * size)
    )
    assert compiler_options(mesh(1, "gpu")) == compiler_options(mesh(4, "tpu")) == {}
    options = compiler_options(mesh(2, "gpu"))
    assert jax.jit(lambda x: x + 1, compiler_options=options)(1) == 2
    with pytest.raises(Exception, match="No such compile option"):
        jax.jit(lambda x: x + 1, compiler_options={f"{name}_": value for name, value in options.items()})(1)
