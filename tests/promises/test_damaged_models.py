"""A folder of a model that is damaged, or asks for absurd sizes, is refused in a line that names the file.

`--trials=1000` damages that many places of each file in place of a few.
"""

import json
import random

import pytest
from helpers.random_model import random_model, tokenizer

from bert_jax.config import ModelConfig
from bert_jax.errors import UserError
from bert_jax.interop import huggingface, pretrained

FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "model"
    huggingface.save(
        folder, random_model(architecture="BertForSequenceClassification", labels=("no", "yes")), tokenizer()
    )
    return {name: (folder / name).read_bytes() for name in FILES}


@pytest.fixture
def model(whole, tmp_path):
    for name, content in whole.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def damaged(content, rng):
    """Returns the content cut, zeroed or flipped at a random place, of which each second is at its beginning."""
    start = rng.randrange(rng.choice((len(content), min(len(content), 3_000))))
    stop = min(len(content), start + rng.choice((1, 8, 100)))
    return rng.choice(
        (
            content[:start],
            content[:start] + bytes(stop - start) + content[stop:],
            content[:start] + bytes(byte ^ 1 << rng.randrange(8) for byte in content[start:stop]) + content[stop:],
            content[:start] + content[stop:],
        )
    )


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FILES)
def test_damage_is_a_line_that_names_a_file_of_the_model_or_does_no_harm(model, whole, name, trials):
    if name == "vocab.txt":
        (model / "tokenizer.json").unlink()
    rng = random.Random(name)
    for _ in range(trials or 40):
        (model / name).write_bytes(damaged(whole[name], rng))
        said = ""
        try:
            pretrained.load_pretrained(model)
        except UserError as error:
            said = str(error)
        assert not said or str(model) in said
        assert "\n" not in said


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    "content", [b"", b"[]", b"null", b"[" * 100_000, b'{"a":' * 100_000, b"\xff\xfe\0", bytes(1_000), b"\xff" * 1_000]
)
def test_files_that_are_something_else(model, name, content):
    if name == "vocab.txt":
        (model / "tokenizer.json").unlink()
    (model / name).write_bytes(content)
    with pytest.raises(UserError, match=name) as error:
        pretrained.load_pretrained(model)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 1_000


SIZES = [field for field, kind in ModelConfig.__annotations__.items() if kind is int]


@pytest.mark.parametrize("value", [10**9, 10**30, -1, 0, 2.5, "12", True, [12], {"a": 1}, float("nan"), float("inf")])
@pytest.mark.parametrize("key", [*SIZES, "num_labels"])
def test_absurd_sizes_are_refused_by_name(model, key, value):
    settings = json.loads((model / "config.json").read_text())
    del settings["id2label"]
    (model / "config.json").write_text(json.dumps({**settings, key: value}))
    with pytest.raises(UserError, match=rf"config\.json.*({key}|which is not JSON)"):
        pretrained.load_pretrained(model)


@pytest.mark.parametrize("key", SIZES)
def test_sizes_that_the_weights_do_not_have_are_told_before_memory_is_taken(model, key):
    """The largest that a config may ask for."""
    largest = int(ModelConfig.__dataclass_fields__[key].metadata["option"].at_most)
    settings = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**settings, key: largest}))
    with pytest.raises(UserError, match=r"does not hold what its config describes|does not divide"):
        pretrained.load_pretrained(model)
