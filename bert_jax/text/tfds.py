"""Reads data sets of TFDS, without TensorFlow, as the records that files give too."""

import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from bert_jax.errors import UserError
from bert_jax.text.lines import NotUTF8Error
from bert_jax.text.tables import Record

_BATCH = 256  # records that are read at once: half the time that one by one takes, and little memory


def tfds_records(name: str, split: str, data_dir: str | None = None) -> Iterator[Record]:
    """Yields the records of a split, with features as `records_of` has them; errors as of `tfds_rows`."""
    return records_of(tfds_rows(name, split, data_dir), f"tfds:{name}:{split}")


def tfds_rows(name: str, split: str, data_dir: str | None = None) -> Any:
    """Opens a split, and prepares the data set if it is not yet.

    Args:
      name: the data set, NAME or NAME/CONFIG, with a version behind a colon or without.
      split: the split, or a part of one as TFDS writes it, such as ``train[:10%]``.
      data_dir: the folder of TFDS data; None is TFDS's own choice (``TFDS_DATA_DIR``).

    Returns:
      A random-access sequence of decoded records; its `dataset_info` has their features.

    Raises:
      UserError: there is no such data set or split, or it cannot be prepared.
    """
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.registered import DatasetNotFoundError

    data_dir = data_dir and os.path.expanduser(data_dir)
    try:
        builder = tfds.builder(name, data_dir=data_dir, file_format="array_record")
    except DatasetNotFoundError as error:
        folder = data_dir or os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
        raise UserError(f"TFDS knows no dataset {name!r}, neither by code nor in {folder}") from error
    except Exception as error:
        raise UserError(f"TFDS cannot open {name!r}: {_first_line(error)}") from error
    try:
        builder.download_and_prepare(file_format="array_record")
    except Exception as error:
        raise UserError(f"TFDS cannot prepare {name!r} in {builder.data_dir}: {_first_line(error)}") from error
    try:
        return builder.as_data_source(split)  # pyright: ignore[reportCallIssue]
    except NotImplementedError as error:
        raise UserError(
            f"tfds:{name} lies in {builder.data_dir} in a format that only TensorFlow reads: "
            "prepare it with file_format='array_record'"
        ) from error
    except (ValueError, KeyError) as error:
        raise UserError(
            f"tfds:{name} has no split {split!r}: choose one of {', '.join(builder.info.splits)}"
        ) from error


def records_of(rows: Any, source: str, *, column: str = "", errors: str = "strict") -> Iterator[Record]:
    """Yields the records of an open split: bytes as text, class numbers as names, NumPy's numbers as Python's.

    Args:
      rows: the split, as `tfds_rows` opens it.
      source: the name of the split, for messages.
      column: the only column that the caller needs; if there is none of this name, all are given.
      errors: the treatment of bytes that are not UTF-8: ``strict`` stops, ``replace`` puts U+FFFD in their place.

    Raises:
      NotUTF8Error: names the record.
    """
    features = rows.dataset_info.features
    for start in range(0, len(rows), _BATCH):
        numbers = list(range(start, min(start + _BATCH, len(rows))))
        for number, record in zip(numbers, rows.__getitems__(numbers), strict=True):
            values = {column: record[column]} if column in record else record
            try:
                yield Record(source, number, _plain(features, values, errors), unit="record")
            except UnicodeDecodeError as error:
                place = f"{source} record {number} is not UTF-8: byte offset {error.start}"
                raise NotUTF8Error(f"{place}; prepare the data anew") from error


def _plain(feature: Any, value: Any, errors: str) -> Any:
    """Returns a value of Python's own types; None stands for the class number -1."""
    if isinstance(value, dict):
        parts = getattr(feature, "feature", feature)
        return {key: _plain(parts[key], part, errors) for key, part in value.items()}
    if isinstance(value, list | np.ndarray):
        return [_plain(getattr(feature, "feature", feature), part, errors) for part in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", errors)
    if feature.np_dtype == np.float32:
        return float(str(np.float32(value)))  # 3.8 as in the file, not 3.799999952
    value = value.item() if isinstance(value, np.generic) else value
    if hasattr(feature, "int2str"):
        return feature.int2str(value) if value >= 0 else None
    return value


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
