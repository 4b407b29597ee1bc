r"""Converts weights: reads any MODEL, checks it, and writes it in Hugging Face layout or as a StableHLO program.

  python scripts/convert.py --input=uncased_L-12_H-768_A-12 --output=bert-base --format=huggingface
  python scripts/convert.py --input=old/pytorch_model_folder --output=new --format=huggingface
  python scripts/convert.py --input=runs/sentiment --output=served --format=stablehlo

Hugging Face layout holds float32 weights as safetensors, the config and the tokenizer: `transformers` loads it as it
is, and so does everything here. The StableHLO program holds the weights too, takes token ids of any batch size and
length, and wants nothing but JAX: jax.export.deserialize(Path("served/model.stablehlo").read_bytes()).call(input_ids,
token_type_ids, attention_mask). What goes in and comes out is in signature.json; the tokenizer lies beside it.
"""

from bert_jax.runtime import command

from absl import flags

from bert_jax.inference import export
from bert_jax.interop import huggingface, pretrained
from bert_jax.interop.layout import disassemble
from bert_jax.model.parameters import part_names

_INPUT = flags.DEFINE_string(
    "input",
    None,
    "MODEL: a workdir of a finished run, a folder in Hugging Face layout (safetensors, or .bin if PyTorch is "
    "installed), or one with Google's TensorFlow checkpoint, as in --input=uncased_L-12_H-768_A-12",
    required=True,
)
_OUTPUT = flags.DEFINE_string(
    "output",
    None,
    "folder to write, which is new, empty or holds a model written before, as in --output=bert-base",
    required=True,
)
_FORMAT = flags.DEFINE_enum(
    "format", "huggingface", ["huggingface", "stablehlo"], "format to write, as in --format=stablehlo"
)
_UPCAST = flags.DEFINE_bool(
    "upcast", False, "also read float16 and bfloat16 weights, and write the same values as float32"
)


def main(_: list[str]) -> None:
    """Reads the model and writes it in the wanted format."""
    model, tokenizer = pretrained.load_pretrained(_INPUT.value, upcast=_UPCAST.value)
    if _FORMAT.value == "stablehlo":
        outputs = export.save(_OUTPUT.value, model, tokenizer)
        shapes = ", ".join(f"{name} [{', '.join(shape)}]" for name, shape in outputs.items())
        print(f"{_OUTPUT.value}/model.stablehlo: {', '.join(export.INPUTS)} [b, l] -> {shapes}")
        return
    huggingface.save(_OUTPUT.value, model, tokenizer)
    count = sum(array.size for array in disassemble(model).values())
    held = ", ".join(["body", *sorted(part_names(model.params))])
    case = "lower-cased" if tokenizer.lower_case else "cased"
    print(f"{_OUTPUT.value}: {count:,} parameters ({held}), {tokenizer.vocab_size:,} vocabulary entries, {case} text")


if __name__ == "__main__":
    command.run(main)
