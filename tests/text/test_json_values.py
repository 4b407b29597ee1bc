"""JSON that is nested deep, holds halves of surrogate pairs, or is an array too large for memory."""

import json
import random
import tracemalloc

import pytest

from bert_jax.errors import UserError
from bert_jax.text.json_values import DEEPEST, parse_json, read_array


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (r'"\ud83d half"', "\ufffd half"),
        (r'{"\udc00": [{"a": "\uD83D"}]}', {"\ufffd": [{"a": "\ufffd"}]}),
        (r'"\ud83d\ude00"', "\U0001f600"),
        (r'"\\ud83d"', r"\ud83d"),
        (r'"\\\ud83d\n"', "\\\ufffd\n"),
        (r'"\ude00\ud83d"', "\ufffd\ufffd"),
        (r'"\ud83d\ud83d\ude00"', "\ufffd\U0001f600"),
    ],
)
def test_halves_of_surrogate_pairs(text, value):
    assert parse_json(text) == value


@pytest.mark.parametrize("depth", [DEEPEST + 10, 990, 100_000])
@pytest.mark.parametrize("brackets", ["[]", ('{"a":', "}")])
def test_deep_values_are_refused_whatever_python_makes_of_them(depth, brackets):
    text = brackets[0] * depth + "1" * (brackets[0] != "[") + brackets[1] * depth
    with pytest.raises(ValueError, match="nested deeper than 100 levels"):
        parse_json(text)
    assert parse_json("[" * DEEPEST + "]" * DEEPEST)


@pytest.mark.parametrize("text", ["NaN", "[-Infinity]", "1e999", '{"a": -1E400}'])
def test_numbers_that_json_does_not_have(text):
    assert parse_json(text) is not None
    with pytest.raises(ValueError, match="is none of its numbers"):
        parse_json(text, finite=True)


def test_an_array_comes_object_by_object(tmp_path):
    draw = random.Random(1)
    objects = [{"text": "é\ud83d😀" * draw.randrange(3_000), "n": number} for number in range(60)]
    path = tmp_path / "a.json"
    for arguments in ({"indent": 1}, {}):
        path.write_text("\ufeff" + json.dumps(objects, **arguments), encoding="utf-8")
        mended = [{**each, "text": each["text"].replace("\ud83d", "\ufffd")} for each in objects]
        assert list(read_array(str(path))) == list(enumerate(mended, 1))


def test_an_array_is_not_held_in_memory(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"text": "x" * 1_000}] * 5_000))
    tracemalloc.start()
    assert sum(len(each["text"]) for _, each in read_array(str(path))) == 5_000_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a JSON array"),
        (b'{"a": 1}', "is not a JSON array"),
        (b'[{"a": 1}, 5]', "object 2 is not a JSON object: it begins with '5'"),
        (b'[{"a": 1},]', "object 2 is not a JSON object: it begins with ']'"),
        (b'[{"a": 1} {}]', "'{' follows object 1"),
        (b'[{"a": 1}', "'its end' follows object 1"),
        (b'[{"a": 1}]x', "'x' follows object 1"),
        (b'[{"a": 1}, {"a": }]', "object 2 is not JSON: Expecting value"),
        (b'[{"a": 1, "a": 2}]', "object 1: an object has two values of one name: 'a'"),
        (b'[{"a": ' + b"[" * 990 + b"]" * 990 + b"}]", "object 1 is not JSON: it is nested deeper"),
        (b'[{"a": "\xff"}]', "is not UTF-8: byte offset 8 is 0xff"),
    ],
)
def test_what_is_no_array_is_told_with_its_place(tmp_path, content, message):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        list(read_array(str(path)))
    assert str(error.value).startswith(str(path))
    assert message in str(error.value)
