"""SQuAD's exact match and F1, as the official scripts of versions 1.1 and 2.0 have them."""

import collections
import math
import re
import string
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from bert_jax.errors import UserError

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize_answer(text: str) -> str:
    """Returns what SQuAD compares: lower case, no ASCII punctuation, no a, an or the, one space between words."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_WITHOUT_PUNCTUATION)).split())


def exact_match(prediction: str, answer: str) -> float:
    """Returns 1.0 if both are the same once normalised, else 0.0."""
    return float(normalize_answer(prediction) == normalize_answer(answer))


def answer_f1(prediction: str, answer: str) -> float:
    """Returns the F1 of the words that both have once normalised, each as often as it is in both.

    Where neither has a word, it is 1.0.
    """
    words, wanted = normalize_answer(prediction).split(), normalize_answer(answer).split()
    if not words or not wanted:
        return float(words == wanted)
    common = (collections.Counter(words) & collections.Counter(wanted)).total()
    if not common:
        return 0.0
    precision, recall = common / len(words), common / len(wanted)
    return 2 * precision * recall / (precision + recall)  # rounded as in the official scripts, so that sums are equal


def score_answers(
    predictions: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    null_scores: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """Computes SQuAD's exact match and F1 in percent, names and numbers as the official scripts print them.

    If a question has no answer, or with null scores, these are those of version 2.0, otherwise those of 1.1. The two
    differ where a right answer has no word once normalised ("The"): 1.1 gives it an F1 of 0, 2.0 leaves it out.

    Args:
      predictions: the text for each question, "" for no answer; other questions are passed over.
      references: the right answers to each question, of which the best counts; none if it has no answer.
      null_scores: how sure it is that a question has no answer: a probability, or on any other scale.

    Returns:
      `exact`, `f1`, `total`; the same as `HasAns_` and `NoAns_` where there are such questions. With null scores also
      `best_exact` and `best_f1`, with the threshold above which "" is the answer that gives them, `best_exact_thresh`
      and `best_f1_thresh`; it is 0.0, whatever the scale, where never to answer is best. Unlike in the official script,
      a null score above 1 leaves the other figures as they are.

    Raises:
      UserError: no questions; one that has no prediction or no finite null score.
    """
    _check_complete("prediction", predictions, references)
    answerable = [question for question, answers in references.items() if answers]
    unanswerable = [question for question, answers in references.items() if not answers]
    version_2 = bool(unanswerable) or null_scores is not None
    points = {question: _points(predictions[question], references[question], version_2) for question in references}
    scores: dict[str, float] = {}
    for prefix, questions in (("", list(references)), ("HasAns_", answerable), ("NoAns_", unanswerable)):
        if questions:
            for name in ("exact", "f1"):
                scores[prefix + name] = 100.0 * sum(points[question][name] for question in questions) / len(questions)
            scores[prefix + "total"] = len(questions)
    if null_scores is not None:
        _check_complete("null score", null_scores, references)
        for name in ("exact", "f1"):
            scores |= _best_threshold(predictions, references, null_scores, points, name)
    return scores


def _check_complete(name: str, given: Mapping[str, Any], questions: Collection[str]) -> None:
    if not questions:
        raise UserError("nothing to score: there are no questions")
    for question in questions:
        if question not in given:
            raise UserError(f"question {question!r} has no {name}: every question needs one, {len(given):,} were given")


def _points(prediction: str, answers: Sequence[str], version_2: bool) -> dict[str, float]:
    """Returns exact match and F1 of a prediction, each with the answer that suits it best."""
    filled = [answer for answer in answers if normalize_answer(answer)]
    if version_2:
        answers = filled = filled or [""]
    exact = max(exact_match(prediction, answer) for answer in answers)
    return {"exact": exact, "f1": max((answer_f1(prediction, answer) for answer in filled), default=0.0)}


def _best_threshold(
    predictions: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    null_scores: Mapping[str, float],
    points: Mapping[str, Mapping[str, float]],
    name: str,
) -> dict[str, float]:
    """Returns the best of `name` ("exact" or "f1"), in percent, and its threshold.

    At first no question counts as answered; then one after the other does. Of equal null scores the
    official script may take some and leave others; to have its numbers, so does this.
    """
    questions = [question for question in null_scores if question in references]
    for question in questions:
        if not math.isfinite(null_scores[question]):
            raise UserError(f"question {question!r} has the null score {null_scores[question]}: wanted a finite number")
    score = best = float(sum(not answers for answers in references.values()))
    threshold = 0.0
    for question in sorted(questions, key=null_scores.__getitem__):
        score += points[question][name] if references[question] else -bool(predictions[question])
        if score > best:
            best, threshold = score, float(null_scores[question])
    return {f"best_{name}": 100.0 * best / len(references), f"best_{name}_thresh": threshold}
