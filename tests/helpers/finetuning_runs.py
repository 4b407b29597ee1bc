"""Small tasks of every kind, and runs that are fine-tuned on them."""

import json

import numpy as np

from bert_jax.config import (
    FinetuningConfig,
    ModelConfig,
    OptimizerConfig,
    ScheduleConfig,
    TaskDataConfig,
)

WORDS = ["the", "film", "was", "a", "actor", "cafe", "word1", "word2", "word3"]


def sentences(count, seed, longest):
    """Two to `longest` random words, with "good" or "bad" somewhere."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        words = list(rng.choice(WORDS, rng.integers(2, longest + 1)))
        words.insert(rng.integers(0, len(words) + 1), ["bad", "good"][number % 2])
        yield words


def write_task(directory, kind, longest):
    """train.EXT and validation.EXT of a task that a small model can learn; returns their ending."""
    for split, count, seed in (("train", 160, 0), ("validation", 40, 1)):
        good = [(words, "good" in words) for words in sentences(count, seed, longest)]
        if kind == "token_classification":
            tags = {"good": "B-POS", "bad": "B-NEG"}
            text = "\n\n".join("\n".join(f"{word} {tags.get(word, 'O')}" for word in words) for words, _ in good)
            (directory / f"{split}.txt").write_text(text + "\n\nthe O\nU.S. O\n")
            continue
        if kind == "question_answering":
            (directory / f"{split}.json").write_text(json.dumps(squad(good)))
            continue
        rows = []
        for words, positive in good:
            text = " ".join(words)
            rows.append(
                {
                    "classification": {"text": text, "label": "pos" if positive else "neg"},
                    "pairs": {"text": "the film", "text_pair": text, "label": "pos" if positive else "neg"},
                    "multi_label": {"text": text, "label": ["pos", "any"] if positive else ["any"]},
                    "regression": {"text": text, "label": 1.0 if positive else -1.0},
                    "multiple_choice": {
                        "text": "a",
                        "ending0": "good" if positive else "bad",
                        "ending1": "bad" if positive else "good",
                        "label": int(not positive),
                    },
                }[kind]
            )
        if kind == "multi_label":  # a label that stands everywhere teaches nothing, but is one
            rows[0]["label"] = []
        (directory / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"token_classification": "txt", "question_answering": "json"}.get(kind, "jsonl")


def squad(sentences):
    """Each sentence asks for the word that is "good" or "bad" in it; every fourth has none."""
    paragraphs = []
    for number, (words, positive) in enumerate(sentences):
        question = {"id": str(number), "question": "a film"}
        if number % 4:
            context, answer = " ".join(words), "good" if positive else "bad"
            question["answers"] = [{"text": answer, "answer_start": context.index(answer)}]
        else:
            context = " ".join(word for word in words if word not in ("good", "bad"))
            question |= {"answers": [], "is_impossible": True}
        paragraphs.append({"context": context, "qas": [question]})
    return {"version": "2.0", "data": [{"title": "t", "paragraphs": paragraphs}]}


def config_for(directory, kind, body, longest=4, **changes):
    """A run on sentences of so many words: with 4, all rows have one length and the step compiles once."""
    ending = write_task(directory, kind, longest)
    settings = dict(
        task=f"custom:{kind}",
        init_from=str(body),
        batch_size=16,
        total_epochs=6.0,
        log_every=10,
        eval_every=0,
        checkpoint_every=0,
        tensorboard=False,
        max_length=24,
        stride=4,
        data=TaskDataConfig(
            train=str(directory / f"train.{ending}"), validation=str(directory / f"validation.{ending}")
        ),
        optimizer=OptimizerConfig(learning_rate=2e-3, bias_correction=True),
        schedule=ScheduleConfig(warmup=0.1),
        model=ModelConfig(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0),
    )
    if kind == "question_answering":
        settings |= dict(max_length=80, stride=8)
    return FinetuningConfig(**settings | changes)
