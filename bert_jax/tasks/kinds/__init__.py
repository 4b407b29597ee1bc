"""The kinds of tasks, a file for each family; a row of the table of tasks names its kind."""

from bert_jax.tasks.kinds.multiple_choice import MultipleChoice
from bert_jax.tasks.kinds.question_answering import QuestionAnswering
from bert_jax.tasks.kinds.text import Classification
from bert_jax.tasks.kinds.token_classification import TokenClassification

# By the head that each puts on the body; those of one head differ in what they make of its outputs.
KIND_OF_HEAD = {
    kind.head: kind for kind in (Classification(), TokenClassification(), MultipleChoice(), QuestionAnswering())
}
