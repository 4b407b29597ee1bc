"""Runs that several test files look at, made once a session."""

import pytest
from helpers.runs import tiny_run
from helpers.toy import CONFIG, Toy, toy_data, train

from bert_jax.pretraining.run import pretrain


@pytest.fixture(scope="session")
def straight(tmp_path_factory):
    """Returns the workdir of a run of the toy task without a break, its last state and its last evaluation."""
    workdir = tmp_path_factory.mktemp("straight")
    trained = train(Toy(), CONFIG, workdir, toy_data())
    return workdir, trained.state, trained.evaluation


@pytest.fixture(scope="session")
def finished(text_file, tmp_path_factory):
    """Returns the workdir of a pre-training run on `text_file`, and its result."""
    workdir = tmp_path_factory.mktemp("finished")
    return workdir, pretrain(tiny_run(text_file), workdir)
