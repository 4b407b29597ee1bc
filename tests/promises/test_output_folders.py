"""No command removes or replaces a file that it did not make: it refuses by name, before it works."""

import json
from pathlib import Path

import pytest
from helpers.random_model import random_model, tokenizer
from helpers.runs import tiny_run

from bert_jax.benchmarks.record import Results
from bert_jax.config import FinetuningConfig, TaskDataConfig
from bert_jax.errors import UserError
from bert_jax.experiments.seeds import finetune_seeds
from bert_jax.inference import export, lines
from bert_jax.inference.evaluate import evaluate_task, evaluate_text
from bert_jax.interop import huggingface
from bert_jax.pretraining.run import pretrain
from bert_jax.text.build import build_corpus
from bert_jax.text.corpus import Corpus
from bert_jax.text.tokenizer import SPECIAL_TOKENS, Tokenizer
from bert_jax.training import workdir as workdirs

TOKENIZER = Tokenizer.from_vocabulary([*SPECIAL_TOKENS, "a", "b", "##b"])
DOCUMENTS = ["A b. B ab a.", "Ab a. B.", "B b b. A."]


def opened(path: Path) -> None:
    with lines.opened_output(str(path)) as file:
        file.write("{}\n")


def written(folder: Path, name: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("of the user")
    return path


FINETUNING = FinetuningConfig(task="sst2", total_steps=1)
COMMANDS = {  # what writes to a folder, and a file of the user's that it would replace
    "corpus": (lambda folder: build_corpus(DOCUMENTS, TOKENIZER, folder, verbose=False), "train/reviews.txt"),
    "corpus' report": (lambda folder: build_corpus(DOCUMENTS, TOKENIZER, folder, verbose=False), "report.json"),
    "tokenizer": (TOKENIZER.save, "tokenizer.json"),
    "model": (lambda folder: huggingface.save(folder, random_model(), TOKENIZER), "config.json"),
    "program": (lambda folder: export.save(folder, random_model(), TOKENIZER), "vocab.txt"),
    "scores": (lambda folder: evaluate_task(None, "sst2", "test", TaskDataConfig(), folder), "predictions.jsonl"),
    "scores on text": (lambda folder: evaluate_text(None, "text", folder), "report.txt"),
    "pre-training": (lambda folder: pretrain(tiny_run(Path("text")), folder), "checkpoints/text.txt"),
    "a model's folder": (lambda folder: pretrain(tiny_run(Path("text")), folder), "config.json"),
    "a finished run": (lambda folder: workdirs.register_run(FINETUNING, folder), "predictions/mine.csv"),
    "seeds": (lambda folder: finetune_seeds(FINETUNING, folder, 2), "scores.json"),
    "benchmark": (lambda folder: Results("train", "", "").save(folder / "train.json"), "train.svg"),
    "predictions": (lambda folder: opened(folder / "out.jsonl"), "out.jsonl"),
}


@pytest.mark.parametrize(("command", "name"), COMMANDS.values(), ids=COMMANDS)
def test_a_file_of_the_user_is_refused_and_stays(tmp_path: Path, command, name: str) -> None:
    path = written(tmp_path / "data", name)
    with pytest.raises(UserError, match=rf"{tmp_path}/data"):
        command(tmp_path / "data")
    assert path.read_text() == "of the user"
    assert [each for each in (tmp_path / "data").rglob("*") if each.is_file()] == [path]


def test_the_tokenizer_of_a_model_is_not_replaced_by_another(tmp_path: Path) -> None:
    huggingface.save(tmp_path, random_model(), tokenizer())
    before = (tmp_path / "vocab.txt").read_text()
    with pytest.raises(UserError, match="was not made as part of a tokenizer"):
        TOKENIZER.save(tmp_path)
    huggingface.save(tmp_path, random_model(), tokenizer())
    assert (tmp_path / "vocab.txt").read_text() == before


def test_a_run_finds_the_tokenizer_that_was_made_for_it(tmp_path: Path) -> None:
    TOKENIZER.save(tmp_path / "tokenizer")
    workdirs.register_run(FINETUNING, tmp_path)


def test_a_corpus_beside_its_own_source_leaves_it_alone(tmp_path: Path) -> None:
    source = tmp_path / "text.txt"
    source.write_text("\n\n".join(DOCUMENTS))
    for _ in range(2):
        build_corpus(str(source), TOKENIZER, tmp_path, verbose=False)
        extra = written(tmp_path, "train/notes.txt")  # put into a folder of ours
        assert source.read_text() == "\n\n".join(DOCUMENTS)
        assert extra.read_text() == "of the user"
    assert Corpus.open(tmp_path).num_documents == 2


def test_a_corpus_of_before_the_mark_is_known_by_its_header(tmp_path: Path) -> None:
    build_corpus(DOCUMENTS, TOKENIZER, tmp_path, verbose=False)
    (tmp_path / ".bert_jax").unlink()
    build_corpus(DOCUMENTS, TOKENIZER, tmp_path, verbose=False)


def test_a_run_of_before_the_mark_is_known_by_its_config(tmp_path: Path) -> None:
    config = tiny_run(Path("text"))
    workdirs.register_run(config, tmp_path)
    (tmp_path / ".bert_jax").unlink()
    (tmp_path / "model").mkdir()
    workdirs.register_run(config, tmp_path)


def test_predictions_replace_predictions_only(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    for answer in ({"id": 3, "label": "a", "score": 1.0, "scores": {"a": 1.0}}, {"error": "line 1: no"}):
        path.write_text(json.dumps(answer) + "\n")
        opened(path)
        assert path.read_text() == "{}\n"
    for foreign in ({"text": "a", "label": "b"}, {"label": "b"}, ["masks"], 3):
        path.write_text(json.dumps(foreign) + "\n")
        with pytest.raises(UserError, match="does not hold predictions"):
            opened(path)
