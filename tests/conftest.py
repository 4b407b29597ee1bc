"""What the tests share: a small text, and no programs left in the user's cache."""

import os
import random
from pathlib import Path

import pytest

os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"  # scripts that tests start leave no programs in the user's cache


@pytest.fixture(scope="session")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 documents of 2 to 12 sentences over 200 words, a blank line between documents."""
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghijklmnop", k=draw.randint(2, 7))) for _ in range(200)]
    sentence = lambda: " ".join(draw.choices(words, k=draw.randint(3, 15))).capitalize() + "."  # noqa: E731
    documents = [" ".join(sentence() for _ in range(draw.randint(2, 12))) for _ in range(300)]
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("\n\n".join(documents) + "\n")
    return path
