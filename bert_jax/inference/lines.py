"""Many questions to a model: a line of input each, a JSON object a line of output, in the same order."""

import contextlib
import itertools
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from tqdm import tqdm

from bert_jax.runtime import streams
from bert_jax.errors import UserError
from bert_jax.inference.loaded import raised
from bert_jax.inference.model import Model
from bert_jax.runtime.files import to_json, whole_file
from bert_jax.tasks.predictions import as_json

Fields = dict[str, Any]  # of a line, by their names


class LineTask(NamedTuple):
    """Describes what the lines of an input are, and what answers them.

    Attributes:
      fields: of a line with tabs, and the keys of a JSON object, in this order.
      needed: so many of them must be there.
      run: from the model, the records, a function to be called with progress, and options to an answer or an error for
        each record.
      options: names of the options that `run` takes.
      takes_words: the field may be a list of words.
    """

    fields: tuple[str, ...]
    needed: int
    run: Callable[..., list[Any]]
    options: tuple[str, ...] = ()
    takes_words: bool = False


class Input(NamedTuple):
    """Holds what is asked.

    Attributes:
      place: where it stands, such as "line 3".
      id: of the row or object, below "id"; empty if it has none.
      fields: of the task; or what is wrong with them.
    """

    place: str
    id: Fields
    fields: Fields | UserError


def fill_mask(model: Model, records: list[Fields], progress: Callable, *, top_k: int, batch_size: int) -> list[Any]:
    """Proposes tokens for each [MASK]."""
    answers = model.fill_mask_batch([record["text"] for record in records], top_k, batch_size, progress)
    return _wrapped("masks", answers)


def next_sentence(model: Model, records: list[Fields], progress: Callable, *, batch_size: int) -> list[Any]:
    """Returns the probability that the second text follows the first."""
    pairs = [(record["text"], record["text_pair"]) for record in records]
    return _wrapped("probability", model.next_sentence_batch(pairs, batch_size, progress))


def classify(model: Model, records: list[Fields], progress: Callable, **options: Any) -> list[Any]:
    """Returns the class of each text or pair."""
    return model.classify_batch(_texts(records), progress=progress, **options)


def tag(model: Model, records: list[Fields], progress: Callable, **options: Any) -> list[Any]:
    """Returns the words and entities of each text."""
    return model.tag_batch([record["text"] for record in records], progress=progress, **options)


def answer(model: Model, records: list[Fields], progress: Callable, **options: Any) -> list[Any]:
    """Returns the answer to each question in its context."""
    questions = [(record["question"], record["context"]) for record in records]
    return model.answer_batch(questions, progress=progress, **options)


def embed(model: Model, records: list[Fields], progress: Callable, **options: Any) -> list[Any]:
    """Returns a vector for each text or pair."""
    vectors = model.embed_batch(_texts(records), progress=progress, **options)
    return _wrapped("vector", [vector if isinstance(vector, UserError) else vector.tolist() for vector in vectors])


LINE_TASKS = {
    "fill-mask": LineTask(("text",), 1, fill_mask, ("top_k",)),
    "next-sentence": LineTask(("text", "text_pair"), 2, next_sentence),
    "classify": LineTask(("text", "text_pair"), 1, classify, ("truncation", "max_length")),
    "tag": LineTask(("text",), 1, tag, ("max_length",), takes_words=True),
    "answer": LineTask(("question", "context"), 2, answer, ("null_threshold", "max_length")),
    "embed": LineTask(("text", "text_pair"), 1, embed, ("pooling", "normalize", "max_length")),
}

_ANSWERS = (  # the keys of a line of output, besides "id"
    *({"masks"}, {"probability"}, {"label", "score", "scores"}, {"labels", "scores"}, {"value"}, {"words", "entities"}),
    *({"answer", "start", "stop", "score", "null_score_diff", "ranked"}, {"vector"}, {"error"}),
)


def predict_lines(run: Callable[..., list[Any]], inputs: Iterator[Input], target: IO[str], *, window: int) -> int:
    """Answers all inputs with a JSON object a line in `target`, {"error": ...} for one that has no answer.

    Args:
      run: `LineTask.run` with all but the records and the progress given.
      inputs: of any number: `window` of them at a time are read, sorted by length and answered.
      target: gets a line for each; its "id", if it has one, comes first.
      window: inputs held in memory.

    Returns:
      How many have no answer.

    Raises:
      UserError: the head is missing, or the inputs cannot be read on; those before that are answered.
      BrokenPipeError: nobody reads the answers any more.
    """
    run([], lambda answered: None)  # a head that the model lacks is reported before anything is read
    errors = 0

    def progress(answered: int) -> None:
        streams.check_reader(target)
        bar.update(answered)

    with tqdm(unit=" lines", file=sys.stderr, disable=None) as bar:
        while True:
            chosen, torn = _next_inputs(inputs, window)
            done = bar.n + len(chosen)
            answers = list(_answered(run, chosen, progress))
            errors += sum("error" in answer for answer in answers)
            target.write("".join(json.dumps(answer, ensure_ascii=False) + "\n" for answer in answers))
            target.flush()  # at once: whoever stops this finds whole lines
            bar.update(done - bar.n)  # those without an answer
            if torn is not None:
                raise torn
            if not chosen:
                return errors


def _next_inputs(inputs: Iterator[Input], count: int) -> tuple[list[Input], UserError | None]:
    """Returns some inputs, and why there are no more if they cannot be read."""
    chosen = []
    try:
        for each in itertools.islice(inputs, count):
            chosen.append(each)  # noqa: PERF402 (what was read before an error counts)
    except UserError as error:
        return chosen, error
    return chosen, None


def _wrapped(name: str, answers: list[Any]) -> list[Any]:
    """Makes an object of one key of each answer; errors stay."""
    return [answer if isinstance(answer, UserError) else {name: as_json(answer)} for answer in answers]


def _texts(records: list[Fields]) -> list[str | tuple[str, str]]:
    return [
        (record["text"], record["text_pair"]) if record.get("text_pair") is not None else record["text"]
        for record in records
    ]


def _answered(run: Callable, inputs: list[Input], progress: Callable[[int], None]) -> Iterator[dict[str, Any]]:
    """Yields one object for each input."""
    good = [each.fields for each in inputs if not isinstance(each.fields, UserError)]
    answers = iter(run(good, progress) if good else [])
    for place, name, fields in inputs:
        result = fields if isinstance(fields, UserError) else next(answers)
        try:
            answer = as_json(raised(result))
            to_json(answer)  # an infinite number or NaN is no answer
        except UserError as error:
            answer = {"error": f"{place}: {error}"}
        yield name | answer


@contextlib.contextmanager
def opened_output(path: str) -> Iterator[IO[str]]:
    """Opens a file that is renamed from a temporary name when all is well; standard output if `path` is empty.

    If its writer is stopped, what it has written becomes PATH.partial, and that is said.

    Raises:
      UserError: there is such a file, and it does not hold predictions.
    """
    if not path:
        yield streams.answers()
        return
    partial = Path(f"{path}.partial")
    for file in (Path(path), partial):
        if not _may_replace(file):
            raise UserError(f"{file} is there and does not hold predictions: move it away, or give another --output")
    with whole_file(Path(path), partial=partial) as file:
        yield file


def _may_replace(path: Path) -> bool:
    """Says whether a file is absent, empty, no file but a device or a pipe, or begins with an answer of ours."""
    try:
        if not path.is_file() or not path.stat().st_size:
            return not path.is_dir()
        with path.open(encoding="utf-8") as file:
            answer = json.loads(file.readline(1 << 24))
        return isinstance(answer, dict) and set(answer) - {"id"} in _ANSWERS
    except (OSError, ValueError, RecursionError):
        return False
