"""Maps the names of weights in this project to Hugging Face's, and trees of parameters to files and back."""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from bert_jax.config import HeadSettings, ModelConfig
from bert_jax.errors import UserError
from bert_jax.model import parameters
from bert_jax.model.parameters import BODY, POOLER, STACKED_LAYERS, part_names

# Leaf names of each kind of module, here and in a file. Dense layers are [in, out] here and [out, in] there.
_LEAVES = {
    "dense": (("kernel", "weight"), ("bias", "bias")),
    "norm": (("scale", "weight"), ("bias", "bias")),
    "table": (("embedding", "weight"),),
    "vector": (("bias", "bias"),),
}

# Path in this project, name in a file, type of module, and shape in the letters of `tensors_of`. `#` is the index of an
# encoder layer.
_MODULES = (
    ("bert/embeddings/word_embeddings", "bert.embeddings.word_embeddings", "table", "VD"),
    ("bert/embeddings/position_embeddings", "bert.embeddings.position_embeddings", "table", "LD"),
    ("bert/embeddings/token_type_embeddings", "bert.embeddings.token_type_embeddings", "table", "TD"),
    ("bert/embeddings/layer_norm", "bert.embeddings.LayerNorm", "norm", "D"),
    ("bert/encoder/layer_#/attention/query", "bert.encoder.layer.#.attention.self.query", "dense", "DD"),
    ("bert/encoder/layer_#/attention/key", "bert.encoder.layer.#.attention.self.key", "dense", "DD"),
    ("bert/encoder/layer_#/attention/value", "bert.encoder.layer.#.attention.self.value", "dense", "DD"),
    ("bert/encoder/layer_#/attention/output", "bert.encoder.layer.#.attention.output.dense", "dense", "DD"),
    ("bert/encoder/layer_#/attention_layer_norm", "bert.encoder.layer.#.attention.output.LayerNorm", "norm", "D"),
    ("bert/encoder/layer_#/feed_forward/inner", "bert.encoder.layer.#.intermediate.dense", "dense", "DF"),
    ("bert/encoder/layer_#/feed_forward/output", "bert.encoder.layer.#.output.dense", "dense", "FD"),
    ("bert/encoder/layer_#/output_layer_norm", "bert.encoder.layer.#.output.LayerNorm", "norm", "D"),
    ("bert/pooler/dense", "bert.pooler.dense", "dense", "DD"),
    ("masked_language_model/transform", "cls.predictions.transform.dense", "dense", "DD"),
    ("masked_language_model/layer_norm", "cls.predictions.transform.LayerNorm", "norm", "D"),
    ("masked_language_model", "cls.predictions", "vector", "V"),
    ("next_sentence", "cls.seq_relationship", "dense", "D2"),
    ("sequence_classification", "classifier", "dense", "DC"),
    ("token_classification", "classifier", "dense", "DC"),
    ("multiple_choice", "classifier", "dense", "D1"),
    ("question_answering", "qa_outputs", "dense", "D2"),
)

# Hugging Face's classes, and what each holds besides the body.
ARCHITECTURES = {
    "BertModel": (),  # with or without a pooler
    "BertForPreTraining": ("pooler", "masked_language_model", "next_sentence"),
    "BertForMaskedLM": ("masked_language_model",),
    "BertForNextSentencePrediction": ("pooler", "next_sentence"),
    "BertForSequenceClassification": ("pooler", "sequence_classification"),
    "BertForTokenClassification": ("token_classification",),
    "BertForMultipleChoice": ("pooler", "multiple_choice"),
    "BertForQuestionAnswering": ("question_answering",),
}
# Heads that bear the same name in a file: only its architecture tells which of them is there.
_CLASSIFIERS = ("sequence_classification", "token_classification", "multiple_choice")
LABELLED = ("sequence_classification", "token_classification")  # heads with a class for each of C labels

# Second names of tied tensors, which some versions of transformers write besides the first.
TIED = {
    "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
    "cls.predictions.decoder.bias": "cls.predictions.bias",
}
_LISTED = 40  # problems in one message
_BUFFERS = {"bert.embeddings.position_ids", "bert.embeddings.token_type_ids"}  # no weights, written by old versions


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """Holds a model as it was read, or as it is to be written.

    Attributes:
      params: the float32 NumPy arrays by their names in this project: the body, and a key for each head.
      config: the architecture.
      labels: the names of the C classes of a fine-tuned head; empty if it has none.
      problem_type: the problem of a sequence classification, as transformers names it: regression,
        single_label_classification or multi_label_classification; empty if it is not said.
      settings: the settings of the head.
    """

    params: dict
    config: ModelConfig
    labels: tuple[str, ...] = ()
    problem_type: str = ""
    settings: HeadSettings = HeadSettings()


class Tensor(NamedTuple):
    """Describes one array of a file."""

    path: tuple[str, ...]  # in the tree of unrolled layers
    name: str  # in the file
    shape: tuple[int, ...]  # in the file
    transposed: bool  # in the file


def tensors_of(parts: set[str], config: ModelConfig, labels: int) -> Iterator[Tensor]:
    """Yields every tensor of the body and of these parts; `labels` is C."""
    sizes = {
        "V": config.vocab_size,
        "L": config.max_position_embeddings,
        "T": config.type_vocab_size,
        "D": config.hidden_size,
        "F": config.intermediate_size,
        "C": labels,
        "1": 1,
        "2": 2,
    }
    for module_path, module_name, module_type, letters in _MODULES:
        if _part(module_path) not in {"body", *parts}:
            continue
        for index in range(config.num_hidden_layers) if "#" in module_path else [0]:
            for leaf, file_leaf in _LEAVES[module_type]:
                path = (*module_path.replace("#", str(index)).split("/"), leaf)
                shape = tuple(sizes[letter] for letter in letters)
                if module_type == "dense":
                    shape = shape[::-1] if leaf == "kernel" else shape[1:]
                name = f"{module_name.replace('#', str(index))}.{file_leaf}"
                yield Tensor(path, name, shape, transposed=leaf == "kernel")


def _part(path: str) -> str:
    head = path.split("/")[0]
    if head != BODY:
        return head
    return POOLER if path.startswith(f"{BODY}/{POOLER}") else "body"


def parts_in(file: Path, names: set[str], architecture: str | None) -> set[str]:
    """Returns what a file holds besides the body: what its architecture promises, and whatever else of BERT is there.

    Raises:
      UserError: there is a `classifier`, and no architecture to tell what it is for.
    """
    parts = set(ARCHITECTURES.get(architecture or "", ()))
    stems = {name.rsplit(".", 1)[0] for name in names}
    if architecture is None and "classifier" in stems:
        raise UserError(
            f'{file} has a classifier, but config.json does not say of what: add "architectures": '
            '["BertForSequenceClassification"], ["BertForTokenClassification"] or ["BertForMultipleChoice"]'
        )
    return parts | {_part(path) for path, name, *_ in _MODULES if name in stems} - {"body", *_CLASSIFIERS}


def assemble(
    file: Path, arrays: Mapping[str, np.ndarray], parts: set[str], config: ModelConfig, labels: int, *, upcast: bool
) -> dict:
    """Makes the tree of parameters from the arrays of a file, by their names.

    Args:
      file: the file, for messages.
      arrays: the arrays, by the names that `BertForPreTraining` and its sisters have, with "bert.".
      parts: the parts that are wanted besides the body.
      config: the architecture, which gives the shapes.
      labels: C, the number of classes.
      upcast: whether float16 and bfloat16 are taken as well; the values stay what they are.

    Raises:
      UserError: tensors are missing, surplus, misshapen (all are listed) or not float32, or the decoder is not tied.
    """
    expected = {tensor.name: tensor.shape for tensor in tensors_of(parts, config, labels)}
    if not expected.keys() & arrays.keys():
        raise UserError(f"{file} holds nothing of BERT: {len(arrays)} tensors, {', '.join(sorted(arrays)[:3])}, ...")
    surplus = arrays.keys() - expected.keys() - TIED.keys() - _BUFFERS
    problems = [f"missing {name}" for name in expected if name not in arrays]
    problems += [f"surplus {name}" for name in sorted(surplus)]
    for name in sorted(expected.keys() & arrays.keys()):
        if arrays[name].shape != expected[name]:
            problems.append(f"{name} is {list(arrays[name].shape)}, the config wants {list(expected[name])}")
    if problems:
        rest = f"; and {len(problems) - _LISTED} more" if len(problems) > _LISTED else ""
        raise UserError(f"{file} does not hold what its config describes: {'; '.join(problems[:_LISTED])}{rest}")
    _check_values(file, arrays, expected, upcast)
    for second, first in TIED.items():
        if second in arrays and first in arrays and not np.array_equal(arrays[second], arrays[first]):
            raise UserError(f"{file}: {second} differs from {first}, and only a tied decoder is supported")
    params: dict = {}
    for tensor in tensors_of(parts, config, labels):
        node = params
        for key in tensor.path[:-1]:
            node = node.setdefault(key, {})
        value = np.asarray(arrays[tensor.name], np.float32)
        node[tensor.path[-1]] = np.ascontiguousarray(value.T) if tensor.transposed else value
    return params


def _check_values(file: Path, arrays: Mapping[str, np.ndarray], expected: Mapping[str, Any], upcast: bool) -> None:
    wide = {np.dtype(name) for name in ("float32", *(("float16", ml_dtypes.bfloat16) if upcast else ()))}
    others = [name for name in expected if arrays[name].dtype not in wide]
    if others:
        dtype = arrays[others[0]].dtype
        more = f" (and {len(others) - 1} more)" if len(others) > 1 else ""
        half = dtype in (np.dtype("float16"), np.dtype(ml_dtypes.bfloat16))
        advice = "; scripts/convert.py --upcast writes it as float32" if half else ""
        raise UserError(f"{file}: {others[0]} is {dtype}{more}, wanted float32{advice}")
    for name in expected:
        if not np.isfinite(arrays[name].astype(np.float32, copy=False)).all():
            raise UserError(f"{file}: {name} holds numbers that are not finite: the run that wrote it had diverged")


def disassemble(model: Pretrained) -> dict[str, np.ndarray]:
    """Makes the arrays of a file by their names, from a tree with layers unrolled or stacked."""
    params = arrange_layers(model.params, dataclasses.replace(model.config, scan_layers=False))
    arrays = {}
    for tensor in tensors_of(part_names(params), model.config, len(model.labels)):
        leaf = params
        for key in tensor.path:
            leaf = leaf[key]
        value = np.asarray(leaf, np.float32)
        # safetensors writes the memory as it lies, so a transposed view has to be laid out anew.
        arrays[tensor.name] = np.ascontiguousarray(value.T if tensor.transposed else value)
        assert arrays[tensor.name].shape == tensor.shape, tensor
    return arrays


def arrange_layers(params: dict, config: ModelConfig) -> dict:
    """Stacks the layers under `layers` or unrolls them to `layer_0`, ..., as `config.scan_layers` wants it.

    The layers come out as NumPy arrays; a tree that is already as wanted comes back as it is.
    """
    encoder = parameters.encoder(params)
    if config.scan_layers == (STACKED_LAYERS in encoder):
        return params
    if config.scan_layers:
        layers = [parameters.layer(params, index) for index in range(config.num_hidden_layers)]
        encoder = {
            STACKED_LAYERS: _over_leaves(lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves]), *layers)
        }
    else:
        stack = _over_leaves(np.asarray, encoder[STACKED_LAYERS])
        encoder = {
            parameters.layer_name(index): _over_leaves(lambda leaf, index=index: leaf[index], stack)
            for index in range(config.num_hidden_layers)
        }
    return parameters.with_encoder(params, encoder)


def _over_leaves(function: Any, *trees: Any) -> Any:
    if isinstance(trees[0], dict):
        return {key: _over_leaves(function, *(tree[key] for tree in trees)) for key in trees[0]}
    return function(*trees)


def with_heads(model: str, params: dict, wanted: dict) -> dict:
    """Puts read weights into a tree as a task wants it, and says what is new and what is left out.

    A head of another size, such as one for fewer classes, is no head of this task: it is drawn anew.

    Args:
      model: the name of what the weights were read from, for the message.
      params: the parameters as they were read.
      wanted: the freshly drawn parameters of the task; the same architecture, other heads perhaps.

    Returns:
      The tree of `wanted`, with what `params` has of it.
    """
    for name in sorted(wanted.keys() & params.keys() - {BODY}):
        if _over_leaves(np.shape, params[name]) != _over_leaves(np.shape, wanted[name]):
            print(f"{model} has {name} of another size: drawn at random")
            params = {**params, name: wanted[name]}
    new, left_out = part_names(wanted) - part_names(params), part_names(params) - part_names(wanted)
    if new:
        print(f"{model} has no {', no '.join(sorted(new))}: drawn at random")
    if left_out:
        print(f"{model} also has {', '.join(sorted(left_out))}: not needed here, left out")
    merged = {key: params.get(key, wanted[key]) for key in wanted}
    read_body, wanted_body = parameters.body(params), parameters.body(wanted)
    return parameters.with_body(merged, {key: read_body.get(key, wanted_body[key]) for key in wanted_body})
