"""A run whose numbers are no longer finite scores, saves and writes none of them, and goes on with a lower rate."""

import dataclasses
import json
import math

import jax
import pytest
from helpers.runs import saved_state
from helpers.toy import CONFIG, Toy, assert_same_bits, toy_data, train

from bert_jax.config import OptimizerConfig
from bert_jax.errors import NotFiniteError, UserError
from bert_jax.training import workdir as workdirs
from bert_jax.training.metrics import MetricsWriter


def lines(workdir) -> list[dict]:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    return [json.loads(line, parse_constant=refuse) for line in (workdir / "metrics.jsonl").open()]


def test_a_last_step_that_overflows_the_parameters_is_neither_scored_nor_saved(tmp_path) -> None:
    """Its gradient and rate are finite; their product with Adam's factor of 3.16 is not."""
    config = dataclasses.replace(CONFIG, total_steps=1, log_every=1, optimizer=OptimizerConfig(learning_rate=3e38))
    with pytest.raises(NotFiniteError, match="not finite after step 1: lower optimizer"):
        train(Toy(), config, tmp_path, toy_data())
    assert list((tmp_path / "checkpoints").iterdir()) == []
    assert [line["split"] for line in lines(tmp_path)] in ([], ["train"])


def test_a_step_to_parameters_whose_squares_overflow_is_not_saved(tmp_path) -> None:
    config = dataclasses.replace(CONFIG, total_steps=1, optimizer=OptimizerConfig(learning_rate=1e22))
    with pytest.raises(NotFiniteError, match="after step 1"):
        train(Toy(), config, tmp_path, toy_data())
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_an_evaluation_that_is_not_finite_is_not_written(tmp_path) -> None:
    data = dataclasses.replace(toy_data(), evaluate=lambda params: {"loss": 1.0, "f1": math.nan})
    with pytest.raises(NotFiniteError, match="f1 is not finite in the evaluation after step 10"):
        train(Toy(), CONFIG, tmp_path, data)
    assert {line["split"] for line in lines(tmp_path)} == {"train"}
    assert max(int(path.name) for path in (tmp_path / "checkpoints").iterdir()) == 6


def test_a_run_that_diverged_goes_on_with_a_lower_rate_from_its_last_checkpoint(tmp_path, capsys) -> None:
    workdirs.register_run(CONFIG, tmp_path)
    with pytest.raises(NotFiniteError):
        train(Toy(), CONFIG, tmp_path, toy_data(bad_step=8))
    lower = dataclasses.replace(CONFIG, optimizer=OptimizerConfig(learning_rate=0.01))
    with pytest.raises(UserError, match="seed was 1 and is 2"):
        workdirs.register_run(dataclasses.replace(lower, seed=2), tmp_path)
    capsys.readouterr()
    workdirs.register_run(lower, tmp_path)
    assert capsys.readouterr().out == (
        "optimizer.learning_rate was 0.05 and is 0.01 from here on: the run had diverged\n"
    )
    trained = train(Toy(), lower, tmp_path, toy_data())
    assert "from step 6 after" in capsys.readouterr().out
    assert int(trained.state.step) == 20
    workdirs.finish(lower, tmp_path, dataclasses.replace(RESULT, metrics={"validation": trained.evaluation}))
    with pytest.raises(UserError, match=r"learning_rate was 0\.01 and is 0\.05"):  # a finished run is what it is
        workdirs.register_run(CONFIG, tmp_path)


@pytest.mark.parametrize(
    ("optimizer", "anew"),
    [
        (OptimizerConfig(clip_norm=0.0), False),
        (OptimizerConfig(clip_norm=0.0, mu_dtype="bfloat16"), False),
        (OptimizerConfig("adamw"), True),
    ],
    ids=["clipping", "types", "rule"],
)
def test_a_run_that_diverged_goes_on_with_another_optimizer(optimizer, anew, tmp_path, capsys) -> None:
    """The state has another shape: moments of the same names are kept, others begin anew; parameters are kept."""
    with pytest.raises(NotFiniteError):
        train(Toy(), CONFIG, tmp_path, toy_data(bad_step=8))
    before = saved_state(tmp_path, 6)
    config = dataclasses.replace(CONFIG, total_steps=6, optimizer=optimizer)
    trained = train(Toy(), config, tmp_path, toy_data())
    state = trained.state
    assert_same_bits(trained.best_params(), before["params"])
    assert ("they begin anew" in capsys.readouterr().out) == anew
    assert_same_bits(state.params, before["params"])
    assert all(leaf.any() != anew for leaf in jax.tree.leaves(state.opt_state))


RESULT = workdirs.RunResult({}, workdirs.Path("model"), {})


def test_a_result_that_is_not_finite_finishes_no_run(tmp_path) -> None:
    result = dataclasses.replace(RESULT, metrics={"validation": {"loss": math.inf}})
    with pytest.raises(UserError, match="not a finite number"):
        workdirs.finish(CONFIG, tmp_path, result)
    assert not (tmp_path / "finished.json").exists()


ODD = [
    b"[1, 2]",
    b"17",
    b'"step"',
    b"null",
    b'{"split": "train"}',
    b'{"step": "5"}',
    b'{"step": null}',
    b'{"step": NaN, "loss": 1}',
    b'{"step": 5, "loss": Infinity}',
    b"[" * 100_000,
    b'{"step":' * 100_000,
    b'{"step": 5, "x": "\xff\xfe"}',
    b"\x00" * 50,
    b'{"step": 5' + b" " * 1_000_000,
    b'{"step": ' + b"9" * 5_000 + b"}",
    b'{"step": 5}{"step": 6}',
]


@pytest.mark.parametrize("odd", ODD, ids=range(len(ODD)))
def test_damaged_lines_of_metrics_are_left_out_and_said(odd, tmp_path, capsys) -> None:
    good = [b'{"step": 4, "split": "train", "loss": 2.0}', b'{"step": 8, "split": "train", "loss": 1.5}']
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b"\n".join([good[0], odd, good[1], b'{"step": 12, "split": "train"}', b'{"step": 1']))
    MetricsWriter(tmp_path, resume_step=8, tensorboard=False).close()
    assert path.read_bytes().splitlines() == good
    assert capsys.readouterr().out == f"{path}: 1 lines are damaged and left out\n"


def test_a_checkpoint_whose_gradient_is_not_finite_is_put_aside(tmp_path, capsys) -> None:
    """It would diverge at any rate: the gradient follows from the state, the batch and the seed alone."""
    config = dataclasses.replace(CONFIG, checkpoint_every=2)
    with pytest.raises(NotFiniteError, match="from the last checkpoint before that"):
        train(Toy(), config, tmp_path, toy_data(bad_step=8))
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"6", "8.diverged"}
    assert (
        f"{tmp_path}/checkpoints/8 leads there at any rate, and is put aside as 8.diverged" in capsys.readouterr().out
    )
    assert int(train(Toy(), config, tmp_path, toy_data()).state.step) == 20
    assert "from step 6 after" in capsys.readouterr().out


def test_a_first_step_that_failed_leaves_a_folder_for_any_config(tmp_path) -> None:
    workdirs.register_run(CONFIG, tmp_path)
    (tmp_path / "checkpoints").mkdir()  # and none in it
    other = dataclasses.replace(CONFIG, seed=2, batch_size=4, optimizer=OptimizerConfig(name="lamb"))
    workdirs.register_run(other, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["batch_size"] == 4
