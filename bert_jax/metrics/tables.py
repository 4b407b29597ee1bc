"""Reports of scores as lines for people."""

from collections.abc import Mapping
from typing import Any

_WIDTH = 120  # characters; a confusion matrix that is wider stays out of a table


def report_table(report: Mapping[str, Any]) -> str:
    """Formats a `class_report` or `entity_report` as lines for people."""
    names, matrix = list(report["classes"]), report.get("confusion_matrix")
    if matrix:
        names = [f"{number} {name}" for number, name in enumerate(names)]
    width = max([0, *map(len, names)])
    lines = [f"{'':{width}}  precision  recall      f1  support"]
    for name, row in zip(names, report["classes"].values(), strict=True):
        figures = f"{row['precision']:9.4f}  {row['recall']:.4f}  {row['f1']:.4f}  {row['support']:>7,}"
        lines.append(f"{name:{width}}  {figures}")
    if matrix:
        lines += ["", *_matrix_lines(names, width, matrix)]
    return "\n".join(lines)


def _matrix_lines(names: list[str], width: int, matrix: list[list[int]]) -> list[str]:
    """Formats a confusion matrix, `names` before its rows and the numbers of the classes above its columns."""
    rows = [list(range(len(names))), *matrix]
    cell = 2 + max(len(str(count)) for row in rows for count in row)
    if width + cell * len(names) > _WIDTH:
        return [f"(the confusion matrix of {len(names)} classes is too wide to be shown)"]
    lines = ["confusion matrix: a row for each label, a column for each predicted class"]
    for name, row in zip(["", *names], rows, strict=True):
        lines.append(f"{name:{width}}" + "".join(f"{count:{cell}}" for count in row))
    return lines
