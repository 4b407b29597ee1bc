"""A StableHLO program gives what the model gives, at any batch size and length, without this package."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import torch
import transformers
from helpers.random_model import CONFIG, random_model, tokenizer

import bert_jax
from bert_jax.inference import export
from bert_jax.interop import huggingface
from bert_jax.interop.layout import ARCHITECTURES

pytestmark = [pytest.mark.slow, pytest.mark.torch]

RUN = """
import sys
sys.modules["bert_jax"] = None  # an import of it would fail
import jax, numpy as np
program = jax.export.deserialize(open(sys.argv[1], "rb").read())
inputs = np.load(sys.argv[2])
found = program.call(*(inputs[name] for name in ("input_ids", "token_type_ids", "attention_mask")))
np.savez(sys.argv[3], **found)
"""


def rows(batch: int, length: int) -> list[np.ndarray]:
    """int32 [B, L] thrice: random words, two token types, rows of different lengths."""
    rng = np.random.default_rng(batch)
    mask = np.arange(length) < rng.integers(2, length + 1, (batch, 1))
    mask[0] = True
    ids = np.where(mask, rng.integers(5, CONFIG.vocab_size, (batch, length)), 0)
    types = mask & (np.arange(length) > length // 2)
    return [each.astype(np.int32) for each in (ids, types, mask)]


# What `transformers` calls each output.
THEIRS = {
    "BertForPreTraining": {"logits": "prediction_logits", "next_sentence_logits": "seq_relationship_logits"},
    "BertForNextSentencePrediction": {"next_sentence_logits": "logits"},
    "BertForQuestionAnswering": {"start_logits": "start_logits", "end_logits": "end_logits"},
    "BertModel": {"last_hidden_state": "last_hidden_state", "pooler_output": "pooler_output"},
}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_head_at_several_shapes_as_transformers_has_it(architecture, tmp_path):
    labels = ("no", "yes", "perhaps") if architecture.endswith("Classification") else ()
    model = random_model(architecture=architecture, labels=labels)
    huggingface.save(tmp_path, model, tokenizer())
    theirs = getattr(transformers, architecture).from_pretrained(tmp_path).eval()
    program = jax.export.deserialize(export.exported(model).serialize())
    assert program.platforms == export.PLATFORMS
    for batch, length in ((1, 7), (3, 12)):
        inputs = rows(batch, length)
        found = program.call(*inputs)
        named = {name: torch.tensor(each) for name, each in zip(export.INPUTS, inputs, strict=True)}
        if architecture == "BertForMultipleChoice":  # [1, C, L] to it
            named = {name: each[None] for name, each in named.items()}
        with torch.no_grad():
            outputs = theirs(**named)
        names = THEIRS.get(architecture, {"logits": "logits"})
        assert found.keys() == names.keys()
        inside = inputs[2] > 0
        for name, array in found.items():
            want = outputs[names[name]].numpy()
            got, want = np.asarray(array), want[0] if architecture == "BertForMultipleChoice" else want
            if got.shape[:2] == inside.shape and got.shape != (batch, len(labels)):
                got, want = got[inside], want[inside]
            np.testing.assert_allclose(got, want, atol=1e-5, err_msg=name)


@pytest.mark.subprocess
def test_the_file_runs_without_this_package(tmp_path):
    huggingface.save(tmp_path / "model", random_model(architecture="BertModel"), tokenizer())
    command = [sys.executable, "scripts/convert.py", f"--input={tmp_path / 'model'}", f"--output={tmp_path / 'out'}"]
    root = Path(__file__).parents[2]
    result = subprocess.run([*command, "--format=stablehlo"], cwd=root, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "last_hidden_state [b, l, " in result.stdout
    signature = json.loads((tmp_path / "out" / "signature.json").read_text())
    assert list(signature["inputs"]) == list(export.INPUTS)
    assert (tmp_path / "out" / "tokenizer.json").exists()

    model = bert_jax.load(tmp_path / "model")
    texts = ["the film was good .", "good"]
    encoded = model.tokenizer.encode_inputs(texts, 16)
    ids, mask = np.zeros((2, 2, 16), np.int32)
    for row, (tokens, *_) in enumerate(encoded):
        ids[row, : len(tokens)], mask[row, : len(tokens)] = tokens, 1
    np.savez(tmp_path / "in.npz", input_ids=ids, token_type_ids=np.zeros_like(ids), attention_mask=mask)
    paths = [str(tmp_path / name) for name in ("out/model.stablehlo", "in.npz", "found.npz")]
    subprocess.run([sys.executable, "-c", RUN, *paths], check=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": ""})
    found, want = np.load(tmp_path / "found.npz"), model.encode(texts)
    longest = want.hidden.shape[1]
    inside = want.attention_mask > 0
    np.testing.assert_allclose(found["last_hidden_state"][:, :longest][inside], want.hidden[inside], atol=1e-5)
    np.testing.assert_allclose(found["pooler_output"], want.pooled, atol=1e-5)
