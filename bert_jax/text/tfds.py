"""stub until the text branch is merged"""

import numpy as np

from bert_jax.errors import UserError
from bert_jax.text.sources import tfds_rows
from bert_jax.text.tables import Record

_AT_ONCE = 1_000


def tfds_records(name, split):
    source = f"tfds:{name}:{split}"
    records = tfds_rows(name, split)
    features = records.dataset_info.features
    for start in range(0, len(records), _AT_ONCE):
        numbers = list(range(start, min(start + _AT_ONCE, len(records))))
        for number, record in zip(numbers, records.__getitems__(numbers), strict=True):
            try:
                yield Record(source, number, _plain(features, record))
            except UnicodeDecodeError as error:
                raise UserError(f"{source} record {number} is not UTF-8") from error


def _plain(feature, value):
    if isinstance(value, dict):
        parts = getattr(feature, "feature", feature)
        return {key: _plain(parts[key], part) for key, part in value.items()}
    if isinstance(value, list | np.ndarray):
        return [_plain(getattr(feature, "feature", feature), part) for part in value]
    if isinstance(value, bytes):
        return value.decode("utf-8")
    if feature.np_dtype == np.float32:
        return float(str(np.float32(value)))
    value = value.item() if isinstance(value, np.generic) else value
    if hasattr(feature, "int2str"):
        return feature.int2str(value) if value >= 0 else None
    return value
