"""Files for graders, against files written by hand and against the graders' own rules."""

import json

import numpy as np
import pytest
from helpers import random_model

from bert_jax.config import FinetuningConfig, TaskDataConfig
from bert_jax.finetuning.run import finetune
from bert_jax.metrics.entities import score_entities
from bert_jax.tasks.kinds.text import TextExample
from bert_jax.tasks.kinds.token_classification import TokenClassificationExample
from bert_jax.tasks.squad import QuestionAnsweringExample
from bert_jax.tasks.submission import write_submission
from bert_jax.tasks.table import TASKS, task_named


def texts(predictions):
    return [TextExample(each["id"], "x", None, None) for each in predictions]


def labelled(*labels):
    return [{"id": str(number), "label": label, "score": 0.7} for number, label in enumerate(labels)]


@pytest.mark.parametrize(
    ("task", "split", "labels", "name", "column"),
    [
        ("cola", "test", ("acceptable", "unacceptable", "acceptable"), "CoLA.tsv", "1 0 1"),
        ("sst2", "test", ("negative", "positive", "positive"), "SST-2.tsv", "0 1 1"),
        ("mrpc", "test", ("equivalent", "not_equivalent", "equivalent"), "MRPC.tsv", "1 0 1"),
        ("qqp", "test", ("duplicate", "not_duplicate", "duplicate"), "QQP.tsv", "1 0 1"),
        ("wnli", "test", ("entailment", "not_entailment", "entailment"), "WNLI.tsv", "1 0 1"),
        ("mnli", "test", ("neutral", "entailment", "contradiction"), "MNLI-m.tsv", "neutral entailment contradiction"),
        ("mnli", "test_mismatched", ("neutral", "neutral", "entailment"), "MNLI-mm.tsv", "neutral neutral entailment"),
        ("qnli", "test", ("not_entailment", "entailment"), "QNLI.tsv", "not_entailment entailment"),
        ("rte", "test", ("entailment", "not_entailment"), "RTE.tsv", "entailment not_entailment"),
    ],
)
def test_glue(tmp_path, task, split, labels, name, column):
    predictions = labelled(*labels)
    paths = write_submission(tmp_path / "made", task_named(task), split, texts(predictions), predictions)
    assert paths == list((tmp_path / "made").iterdir()) == [tmp_path / "made" / name]
    rows = "".join(f"{index}\t{value}\n" for index, value in enumerate(column.split()))
    assert paths[0].read_bytes() == b"index\tprediction\n" + rows.encode()


def test_numbers_have_three_decimals_between_0_and_5(tmp_path):
    values = [-0.2, -0.0, 0.12345, 3.8, 4.9996, 5.3]
    predictions = [{"id": str(number), "value": value} for number, value in enumerate(values)]
    (path,) = write_submission(tmp_path, task_named("stsb"), "test", texts(predictions), predictions)
    assert path.name == "STS-B.tsv"
    assert path.read_text() == "index\tprediction\n0\t0.000\n1\t0.000\n2\t0.123\n3\t3.800\n4\t5.000\n5\t5.000\n"


@pytest.mark.parametrize(
    ("ids", "rows"),
    [
        (["10", "2", "0"], "0\tentailment\n2\tnot_entailment\n10\tentailment\n"),
        (["10.0", "2", "0.0"], "0\tentailment\n2\tnot_entailment\n10\tentailment\n"),
        (["b", "7", "a"], "0\tentailment\n1\tnot_entailment\n2\tentailment\n"),
    ],
    ids=["indices in another order", "floats", "names of one's own"],
)
def test_rows_of_glue_stand_in_the_order_of_the_test_file(tmp_path, recwarn, ids, rows):
    labels = ("entailment", "not_entailment", "entailment")
    predictions = [{**each, "id": name} for each, name in zip(labelled(*labels), ids, strict=True)]
    (path,) = write_submission(tmp_path, task_named("rte"), "test", texts(predictions), predictions)
    assert path.read_text() == "index\tprediction\n" + rows
    assert [str(each.message) for each in recwarn] == (
        ["submission of rte: ids such as 'b' are no numbers, as the server's are: the rows are numbered from 0"]
        if "b" in ids
        else []
    )


@pytest.mark.parametrize(
    ("task", "split"),
    [
        *[(task, "validation") for task in ("cola", "stsb", "mnli")],
        ("mnli", "validation_mismatched"),
        *[(task, "test") for task in TASKS if task.startswith("custom:") or task in ("swag", "race", "imdb")],
    ],
)
def test_what_nobody_grades_is_not_written(tmp_path, task, split):
    assert write_submission(tmp_path / "made", task_named(task), split, [], []) == []
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("task", ["squad", "squad2"])
def test_squad(tmp_path, task):
    """What `json.load` of the official scripts gives, in whatever encoding they read: text, and number, by question."""
    predictions = [
        {"id": "56be", "answer": "Über “Ulm”", "start": 3, "score": 0.4, "null_score_diff": -2.5},
        {"id": "56bf", "answer": "", "start": 0, "score": 0.9, "null_score_diff": 4.25},
    ]
    examples = [QuestionAnsweringExample(each["id"], "Who?", "x", (), True) for each in predictions]
    paths = write_submission(tmp_path, task_named(task), "validation", examples, predictions)
    want = {"validation.json": {"56be": "Über “Ulm”", "56bf": ""}}
    if task == "squad2":
        want["validation.null_odds.json"] = {"56be": -2.5, "56bf": 4.25}
    assert {path.name: json.loads(path.read_text(encoding="ascii")) for path in paths} == want
    assert sorted(tmp_path.iterdir()) == sorted(paths)


SENTENCES = [
    ("EU rejects German call", "B-ORG O B-MISC O", "B-ORG O I-MISC O"),
    ("Peter Blackburn", "B-PER I-PER", "B-PER B-PER"),
    ("BRUSSELS", "B-LOC", "I-LOC"),
]


def tagged(sentences, known=True):
    examples = [
        TokenClassificationExample(str(number), tuple(words.split(" ")), tuple(tags.split()) if known else None)
        for number, (words, tags, _) in enumerate(sentences)
    ]
    predictions = [{"id": str(number), "tags": found.split()} for number, (_, _, found) in enumerate(sentences)]
    return task_named("conll2003"), "validation", examples, predictions


def test_conll(tmp_path):
    (path,) = write_submission(tmp_path, *tagged(SENTENCES))
    assert path == tmp_path / "validation.txt"
    assert path.read_text() == (
        "EU B-ORG B-ORG\nrejects O O\nGerman B-MISC I-MISC\ncall O O\n"
        "\nPeter B-PER B-PER\nBlackburn I-PER B-PER\n\nBRUSSELS B-LOC I-LOC\n"
    )


def test_conll_without_the_right_tags(tmp_path):
    (path,) = write_submission(tmp_path, *tagged([("Anna\u00a0B \x85 u", "O O O", "B-PER O B-PER")], known=False))
    assert path.read_text(encoding="utf-8") == "Anna_B B-PER\n_ O\nu B-PER\n"


def conlleval(text):
    """Precision, recall and F1 by the rules of conlleval (Tjong Kim Sang and Buchholz 2000), for B- and I- tags.

    It walks over the lines as the script does, and counts a chunk as right if it begins, goes on and ends with the one
    in the data.
    """

    def ends(before, tag):
        return before[0] != "O" and (tag[0] in "BO" or before[1:] != tag[1:])

    def starts(before, tag):
        return tag[0] != "O" and (tag[0] == "B" or before[0] == "O" or before[1:] != tag[1:])

    right = wanted = found = 0
    inside, gold_before, guess_before = False, "O", "O"
    for line in [*text.split("\n"), ""]:
        columns = line.split()
        assert len(columns) in (0, 3)
        _, gold, guess = columns or ("", "O", "O")
        both_end = ends(gold_before, gold) and ends(guess_before, guess)
        if inside and both_end and gold_before[1:] == guess_before[1:]:
            inside, right = False, right + 1
        elif inside and (ends(gold_before, gold) != ends(guess_before, guess) or gold[1:] != guess[1:]):
            inside = False
        both_start = starts(gold_before, gold) and starts(guess_before, guess)
        inside = inside or (both_start and gold[1:] == guess[1:])
        wanted, found = wanted + starts(gold_before, gold), found + starts(guess_before, guess)
        gold_before, guess_before = gold, guess
    return {"precision": right / found, "recall": right / wanted, "f1": 2 * right / (wanted + found)}


def test_conlleval_finds_our_scores_in_the_file(tmp_path):
    """Also where a wrong sentence boundary would change them."""
    rng = np.random.default_rng(0)
    names = TASKS["conll2003"].labels
    sentences = []
    for length in rng.integers(1, 9, 200):
        gold = rng.choice(names, length)
        guess = np.where(rng.random(length) < 0.7, gold, rng.choice(names, length))
        sentences.append((" ".join(["word"] * length), " ".join(gold), " ".join(guess)))
    task, split, examples, predictions = tagged(sentences)
    (path,) = write_submission(tmp_path, task, split, examples, predictions)
    ours = score_entities([each.tags for each in examples], [each["tags"] for each in predictions])
    del ours["accuracy"]
    text = path.read_text()
    assert conlleval(text) == pytest.approx(ours, rel=1e-12)
    assert conlleval(text.replace("\n\n", "\n")) != pytest.approx(ours, rel=1e-3)


@pytest.mark.slow
def test_a_run_leaves_the_files_in_its_workdir(tmp_path):
    columns, data = "index\tsentence1\tsentence2", tmp_path / "RTE"
    data.mkdir()
    for name in ("train", "dev"):
        rows = "0\tgood film\tthe film\tentailment\n1\tbad film\tthe actor\tnot_entailment\n"
        (data / f"{name}.tsv").write_text(f"{columns}\tlabel\n{rows}")
    (data / "test.tsv").write_text(f"{columns}\n0\tthe cafe\tthe film\n1\tgood\tbad\n")
    random_model.tokenizer().save(tmp_path / "vocabulary")
    config = FinetuningConfig(
        task="rte",
        init_from="none",
        vocabulary=str(tmp_path / "vocabulary"),
        batch_size=2,
        total_steps=1,
        tensorboard=False,
        max_length=16,
        model=random_model.CONFIG,
        data=TaskDataConfig(directory=str(data)),
    )
    finetune(config, tmp_path / "run")
    (path,) = (tmp_path / "run" / "submission").iterdir()
    predictions = [json.loads(line) for line in (tmp_path / "run" / "predictions" / "test.jsonl").open()]
    assert path.name == "RTE.tsv"
    assert path.read_text() == "index\tprediction\n" + "".join(f"{p['id']}\t{p['label']}\n" for p in predictions)
