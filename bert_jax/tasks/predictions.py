"""Predictions as JSON."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bert_jax.runtime.files import to_json, write_whole


def as_json(value: Any) -> Any:
    """Turns a prediction, a named tuple, and all named tuples and lists in it into objects and lists of JSON."""
    if hasattr(value, "_asdict"):
        return {name: as_json(part) for name, part in value._asdict().items()}
    if isinstance(value, list):
        return [as_json(part) for part in value]
    return value


def write_predictions(path: Path, examples: Sequence[Any], predictions: Sequence[Any]) -> list[dict[str, Any]]:
    """Writes a JSON object for each example, its id and the prediction, and returns these objects."""
    records = [
        {"id": example.id, **as_json(prediction)} for example, prediction in zip(examples, predictions, strict=True)
    ]
    write_whole(path, "".join(to_json(record, ensure_ascii=False) + "\n" for record in records))
    return records
