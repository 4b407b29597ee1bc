"""Runs pre-training from text to an exported model: vocabulary, corpus, training, export."""

import dataclasses
import functools
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from bert_jax.config import ModelConfig, PretrainingConfig, from_config_dict, with_overrides
from bert_jax.config.conversion import flattened
from bert_jax.config.fields import names
from bert_jax.config.model import overruled
from bert_jax.errors import UserError
from bert_jax.interop import huggingface, pretrained
from bert_jax.interop.layout import Pretrained, arrange_layers, with_heads
from bert_jax.interop.pretrained import without_padding
from bert_jax.metrics.language_model import majority_share, unigram_loss
from bert_jax.model.kernels.choose import describe_kernel
from bert_jax.pretraining.batches import PretrainingBatches, iterate, validation_batches
from bert_jax.pretraining.initialization.neighbours import check_width, init_neighbour_heads
from bert_jax.pretraining.initialization.word_vectors import check_vocabulary, init_embeddings_from_counts
from bert_jax.pretraining.objective import PretrainingObjective
from bert_jax.pretraining.packing import sequences_per_row
from bert_jax.runtime.execution import Execution
from bert_jax.runtime.files import read_json
from bert_jax.runtime.memory import out_of_memory_told
from bert_jax.text.build import build_corpus
from bert_jax.text.corpus import SPLITS, Corpus
from bert_jax.text.corpus import identity as corpus_identity
from bert_jax.text.sources import Documents, TextSource
from bert_jax.text.tokenizer import Tokenizer, train_tokenizer
from bert_jax.training import workdir as workdirs
from bert_jax.training.loop import Data, memory_remedy, train
from bert_jax.training.result import RunResult, timed
from bert_jax.training.sharding import check_batch, local_rows

SHAPING_FIELDS = names(ModelConfig, "weights")
_FEW_DOCUMENTS = 10  # held out: too few for figures to rest on


def pretrain(config: PretrainingConfig, workdir: Path, *, profile: bool = False, verify: bool = False) -> RunResult:
    """Does whatever of the run is not yet done, and leaves the model in WORKDIR/model.

    Args:
      config: the config of the run.
      workdir: the folder of the run, new or with the same config.
      profile: whether to leave a trace of a few steps in WORKDIR/profile.
      verify: whether to check every byte of the corpus and of all checkpoints, however large they are.

    Returns:
      The metrics of the last evaluation as those of split "validation". Besides, `unigram_loss` is nats a token of the
      held-out text under the word frequencies of the training text, and `nsp_majority` the share of the commoner
      answer among its sentence pairs. With `init_from`, "before_training" has the evaluation before the first step.

    Raises:
      UserError: bad config, text, tokenizer or corpus, or a loss that is not finite.
      Interrupted: by SIGINT, SIGTERM or SIGHUP, after saving.
    """
    config = with_architecture(config)
    check(config)
    execution = Execution.here(config.compute_dtype, config.mesh)
    if execution.process_count > 1:
        raise UserError(f"pre-training runs in one process with all its devices, not in {execution.process_count}")
    check_batch(config.batch_size, config.accumulate, execution.mesh)
    check_start(config)
    max_sequences = sequences_per_row(config.data.length, config.data.packing)
    print(describe_kernel(config.model, execution, config.data.length, max_sequences))
    with workdirs.entered(config, workdir, text_settings) as check_there:
        return _pretrain(config, workdir, execution, check_there, profile=profile, verify=verify)


def _pretrain(
    config: PretrainingConfig,
    workdir: Path,
    execution: Execution,
    check_there: Callable[[], None],
    *,
    profile: bool,
    verify: bool,
) -> RunResult:
    """Does it, in a folder that it has for itself."""
    seconds: dict[str, float] = {}
    with timed(seconds, "vocabulary"):
        tokenizer = open_tokenizer(config, workdir)
    with timed(seconds, "corpus"):
        directory = open_corpus(config, workdir, tokenizer)
    given_config, config = config, with_overrides(config, {"model.vocab_size": tokenizer.vocab_size})
    train_text, data = make_data(config, directory, tokenizer, execution, verify=verify)
    initial_params = functools.partial(first_params, config, train_text)
    objective = pretraining_objective(config, tokenizer, execution)
    with timed(seconds, "training"), out_of_memory_told(memory_remedy(config)):
        trained = train(
            objective, config, workdir, data, execution.mesh, initial_params, profile=profile, verify=verify
        )
    model = workdir / "model"
    check_there()
    with timed(seconds, "export"):
        huggingface.save(model, Pretrained(jax.device_get(trained.state.params), config.model), tokenizer)
    baselines = {"unigram_loss": unigram_loss(train_text.token_counts, data.validation, tokenizer.special_ids)}
    if config.data.objective != "none":
        baselines["nsp_majority"] = majority_share(data.validation)
    metrics = {"validation": trained.evaluation | baselines}
    if before := first_evaluation(workdir):
        metrics["before_training"] = before
    result = RunResult(metrics, model, seconds)
    workdirs.finish(given_config, workdir, result)
    return result


def summary(result: RunResult) -> str:
    """Describes a finished pre-training run in a few lines, for people."""
    metrics = result.metrics["validation"]
    times = ", ".join(f"{stage} {seconds:.0f} s" for stage, seconds in result.seconds.items())
    below = metrics["unigram_loss"] - metrics["mlm_loss"]
    where = "below" if below >= 0 else "above"
    lines = [
        f"Time: {times}",
        f"Unigram cross-entropy of the held-out text: {metrics['unigram_loss']:.3f} nats",
        f"Masked-LM loss on it: {metrics['mlm_loss']:.3f} nats, {abs(below):.3f} {where} "
        f"(perplexity {metrics['mlm_perplexity']:.1f}, accuracy {metrics['mlm_accuracy']:.1%})",
    ]
    if before := result.metrics.get("before_training"):
        lines.append(f"Before training it was {before['mlm_loss']:.3f} nats")
    if "nsp_accuracy" in metrics:
        lines.append(
            f"Sentence-pair accuracy: {metrics['nsp_accuracy']:.1%} "
            f"(the commoner answer alone: {metrics['nsp_majority']:.1%})"
        )
    return "\n".join(lines)


def check(config: PretrainingConfig) -> None:
    """Raises UserError for what can be known before any text is read."""
    if bool(config.data.source) == bool(config.data.corpus):
        raise UserError("set either data.source (text) or data.corpus (a folder written by build_corpus), not both")
    if config.data.corpus and not (config.data.tokenizer or config.init_from):
        raise UserError("data.corpus needs data.tokenizer, the folder of the vocabulary that it was built with")
    if config.data.length > config.model.max_position_embeddings:
        raise UserError(
            f"data.length={config.data.length} is longer than the position table: raise "
            f"model.max_position_embeddings={config.model.max_position_embeddings}"
        )


def check_start(config: PretrainingConfig) -> None:
    """Raises UserError for what the first step could not start from; before the text is read, which takes long."""
    if config.initial_embeddings == "counted":
        check_vocabulary(config.model)
    if config.initial_attention == "neighbours":
        check_width(config.model)


def open_tokenizer(config: PretrainingConfig, workdir: Path) -> Tokenizer:
    """Opens WORKDIR/tokenizer, which is first copied from the given one or `init_from`, else trained on the source.

    Raises:
      UserError: the vocabularies given, of `init_from` and in the workdir are not one, or not of the model's size.
    """
    folders = [config.data.tokenizer, config.init_from and pretrained.resolve(config.init_from), workdir / "tokenizer"]
    folders = [Path(folder) for folder in folders if folder]
    if not (folders[-1] / "tokenizer.json").exists():
        tokenizer = Tokenizer.load(folders[0]) if len(folders) > 1 else train_vocabulary(config)
        tokenizer.save(folders[-1])
    tokenizer = Tokenizer.load(folders[-1])
    for folder in folders[:-1]:
        if Tokenizer.load(folder).hash != tokenizer.hash:
            raise UserError(f"the vocabularies in {folder} and {folders[-1]} differ: give one, or another --workdir")
    if len(folders) > 1 and tokenizer.vocab_size != config.model.vocab_size:
        raise UserError(
            f"the tokenizer in {folders[0]} has {tokenizer.vocab_size} entries: "
            f"set model.vocab_size={tokenizer.vocab_size} (it is {config.model.vocab_size})"
        )
    return tokenizer


def train_vocabulary(config: PretrainingConfig) -> Tokenizer:
    """Trains a vocabulary of at most `model.vocab_size` entries on the source."""
    documents = Documents(TextSource.of(config.data), progress=True)
    return train_tokenizer(
        documents, config.model.vocab_size, lower_case=config.data.lower_case, min_frequency=config.data.min_frequency
    )


def open_corpus(config: PretrainingConfig, workdir: Path, tokenizer: Tokenizer) -> Path:
    """Returns `corpus_folder`; the corpus is built from the source if it is not there yet."""
    directory = corpus_folder(config, workdir)
    if not (config.data.corpus or (directory / "header.json").exists()):
        build_corpus(
            TextSource.of(config.data),
            tokenizer,
            directory,
            language=config.data.language,
            longest=longest_sentence(config),
            validation_share=config.data.validation_share,
        )
    return directory


def text_settings(config: PretrainingConfig) -> dict[str, Any]:
    """Returns all that WORKDIR/tokenizer and WORKDIR/corpus follow from, by config key."""
    data, model = config.data, config.model
    source = flattened(dataclasses.asdict(TextSource.of(data)), "data.")
    vocabulary = {"data.tokenizer": data.tokenizer, "init_from": config.init_from}
    if not (data.tokenizer or config.init_from):
        vocabulary |= {
            "model.vocab_size": model.vocab_size,
            "data.lower_case": data.lower_case,
            "data.min_frequency": data.min_frequency,
        }
    corpus = {
        "data.corpus": data.corpus,
        "data.language": data.language,
        "data.length": longest_sentence(config),
        "data.validation_share": data.validation_share,
    }
    return source | vocabulary | corpus


def longest_sentence(config: PretrainingConfig) -> int:
    """Returns the tokens at which a sentence is cut: in [CLS] A [SEP] B [SEP], none fills more than a row."""
    return min(128, config.data.length - 3)


def corpus_folder(config: PretrainingConfig, workdir: Path) -> Path:
    """Returns the folder of the given corpus, else WORKDIR/corpus."""
    return Path(config.data.corpus or workdir / "corpus")


def read_run(workdir: Path) -> PretrainingConfig:
    """Reads the config of the pre-training run in WORKDIR.

    Raises:
      UserError: there is none.
    """
    try:
        values = read_json(workdir / "config.json")
    except FileNotFoundError as error:
        raise UserError(f"no run in {workdir}: it has no config.json; run pretrain.py first") from error
    return from_config_dict(PretrainingConfig, values)


def make_data(
    config: PretrainingConfig, directory: Path, tokenizer: Tokenizer, execution: Execution, *, verify: bool = False
) -> tuple[Corpus, Data]:
    """Returns the training text, and the batches of the run; `verify` as in `Corpus.open`.

    Raises:
      UserError: the corpus is of another tokenizer, is damaged, or holds no validation documents.
    """
    train_text, held_out = (Corpus.open(directory, split, tokenizer, verify=verify) for split in SPLITS)
    if not held_out.num_tokens:
        raise UserError(
            f"corpus {directory} has no held-out documents: it needs two documents at least (in .txt files, a blank "
            "line stands between documents) and a validation_share above 0"
        )
    warn_of_text(config, train_text, held_out)
    ids = dict(cls_id=tokenizer.cls_id, sep_id=tokenizer.sep_id, batch_size=config.batch_size)
    rows = local_rows(config.batch_size, execution)
    batches = PretrainingBatches(train_text, config.data, **ids, seed=config.seed, rows=rows)
    print(
        f"{train_text.num_tokens:,} tokens make {batches.rows_per_epoch:,} rows an epoch, "
        f"{batches.fill_share:.1%} filled; {batches.dropped_share:.1%} of the text sits out an epoch"
    )
    data = Data(
        train=functools.partial(iterate, batches),
        validation=validation_batches(held_out, config.data, **ids, max_rows=config.data.validation_rows, seed=0),
        rows_per_epoch=batches.rows_per_epoch,
        tokens_per_row=config.data.length,
        identity={"vocabulary": tokenizer.hash, "corpus": corpus_identity(directory)},
        evaluate_first=bool(config.init_from),
    )
    return train_text, data


def warn_of_text(config: PretrainingConfig, train_text: Corpus, held_out: Corpus) -> None:
    """Warns where figures of the run will mean little, for what the text is."""
    if held_out.num_documents < _FEW_DOCUMENTS:
        warnings.warn(
            f"{held_out.num_documents} documents with {held_out.num_tokens:,} tokens are held out: the validation "
            "figures are rough; raise data.validation_share, or give more text",
            stacklevel=2,
        )
    if config.data.objective != "none" and train_text.num_sentences == train_text.num_documents:
        warnings.warn(
            f"every document has one sentence, and none is followed by another: {config.data.objective} learns "
            "nothing, and its accuracy means nothing; set data.objective=none, or put the sentences of a text together",
            stacklevel=2,
        )


def first_params(config: PretrainingConfig, text: Corpus, random_params: dict) -> dict:
    """Returns the parameters that a run starts from: those of `init_from`, or random ones, perhaps improved for `text`.

    Prints which heads `init_from` does not have, and takes those from the random parameters.

    Raises:
      UserError: the weights are of another architecture; names each field.
    """
    if not config.init_from:
        if config.initial_embeddings == "counted":
            random_params = init_embeddings_from_counts(random_params, config.model, text)
        if config.initial_attention == "neighbours":
            unrolled = dataclasses.replace(config.model, scan_layers=False)
            params = init_neighbour_heads(arrange_layers(jax.device_get(random_params), unrolled), unrolled)
            random_params = arrange_layers(params, config.model)
        return random_params
    loaded = starting_weights(config)
    return with_heads(config.init_from, arrange_layers(loaded.params, config.model), random_params)


def starting_weights(config: PretrainingConfig) -> Pretrained:
    """Reads the weights of `init_from`."""
    return without_padding(*pretrained.load_pretrained(config.init_from))


def with_architecture(config: PretrainingConfig) -> PretrainingConfig:
    """Returns the config with the architecture and the vocabulary size of `init_from`, if it is set.

    Raises:
      UserError: `init_from` cannot be read, or `model` asks for another architecture; names each key.
    """
    if not config.init_from:
        return config
    found = starting_weights(config).config
    different = [
        f"model.{name}={getattr(found, name)} (asked for: {getattr(config.model, name)})"
        for name in overruled(config.model, found, SHAPING_FIELDS, config.asked)
    ]
    if different:
        raise UserError(
            f"init_from={config.init_from} is of another architecture, {', '.join(different)}: leave it out"
        )
    shape = {name: getattr(found, name) for name in SHAPING_FIELDS}
    return dataclasses.replace(config, model=dataclasses.replace(config.model, **shape))


def first_evaluation(workdir: Path) -> dict[str, float]:
    """Returns the evaluation before the first step from WORKDIR/metrics.jsonl; empty if there is none."""
    for line in (workdir / "metrics.jsonl").read_text().splitlines()[:1]:
        values = json.loads(line)
        if (values.pop("step"), values.pop("split")) == (0, "validation"):
            return values
    return {}


def pretraining_objective(
    config: PretrainingConfig, tokenizer: Tokenizer, execution: Execution
) -> PretrainingObjective:
    """Returns the objective of a run with the tokenizer's ids."""
    return PretrainingObjective(
        model=config.model,
        data=config.data,
        special_ids=tokenizer.special_ids,
        mask_id=tokenizer.mask_id,
        continuations=tuple(tokenizer.is_continuation.tolist()),
        execution=execution,
    )
