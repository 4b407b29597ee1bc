"""Writes the tables of config keys into docs/configuration.md, from the options of the keys.

  python scripts/document_configuration.py

A table stands between the lines <!-- keys of CLASS --> and <!-- end of keys -->; everything else in the page stays.
"""

from bert_jax.runtime import command
from bert_jax.runtime.files import write_whole

import re
from pathlib import Path

from bert_jax import config
from bert_jax.config.reference import markdown_table

PAGE = Path(__file__).parents[1] / "docs" / "configuration.md"
_TABLE = re.compile(r"(<!-- keys of (\w+) -->\n).*?(<!-- end of keys -->)", re.DOTALL)


def with_tables(text: str) -> str:
    """Returns the page with its tables as they should be."""
    return _TABLE.sub(lambda match: f"{match[1]}\n{markdown_table(getattr(config, match[2]))}\n\n{match[3]}", text)


def main(_: list[str]) -> None:
    """Writes the page."""
    write_whole(PAGE, with_tables(PAGE.read_text(encoding="utf-8")))


if __name__ == "__main__":
    command.run(main)
