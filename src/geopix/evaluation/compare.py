"""Runs side by side, scored on the same images: which differences are more than the luck of the images."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from geopix.evaluation.folder import METRICS, Result, read_result
from geopix.evaluation.names import is_count
from geopix.evaluation.numbers import Interval, differences, mean_numbers


@dataclass(frozen=True)
class Row:
    """One score of all models.

    Args:
        name: of the score.
        values: by model; None where one does not have it.
        changes: interval of the difference to the first model, for each after it; None where there is none.
    """

    name: str
    values: tuple[float | None, ...]
    changes: tuple[Interval | None, ...]


def compare(folders: Sequence[Path], *, seeds: int = 1, resamples: int = 1000) -> list[Row]:
    """Scores of several tests of the same data, and the paired bootstrap of their differences to the first.

    Args:
        seeds: every so many folders in a row are one model trained with other seeds, in the same order of seeds; its scores are means over them, and the
            bootstrap draws seeds as well as images.

    Raises:
        ValueError: for fewer than two models, runs of different data or rules, or a folder without a finished test.
    """
    if seeds < 1 or len(folders) % seeds or len(folders) < 2 * seeds:
        each = f", of {seeds} runs each (--seeds {seeds})" if seeds > 1 else ""
        raise ValueError(f"a comparison needs at least two models{each}; found {len(folders)} runs: {', '.join(map(str, folders)) or 'none'}.")
    results = read_alike(folders, seeds=seeds)
    rule, tables = results[0].rule, [result.table() for result in results]
    models = [tables[start : start + seeds] for start in range(0, len(tables), seeds)]
    values = [mean_numbers(model, rule) for model in models]
    changes = [differences(models[0], model, rule, resamples=resamples) for model in models[1:]]
    names = [name for name in dict.fromkeys(name for each in values for name in each) if not is_count(name)]
    return [Row(name, tuple(each.get(name) for each in values), tuple(each.get(name) for each in changes)) for name in sorted(names)]


def read_alike(folders: Sequence[Path], *, seeds: int = 1) -> list[Result]:
    """Results that may be compared: of the same data, by protocols that count alike, each model with the same seeds in the same order.

    Raises:
        ValueError: where they are not, or a folder holds no finished test.
    """
    results = [read_result(folder) for folder in folders]
    for folder, result in zip(folders[1:], results[1:], strict=True):
        _same(folders[0], results[0], folder, result)
    known = [result.said.get("seed") for result in results]
    for start in range(0, len(known), seeds):
        model, first = known[start : start + seeds], known[:seeds]
        if seeds > 1 and None not in (*model, *first) and (model != first or len(set(model)) < seeds):
            raise ValueError(
                f"{folders[start]} and the {seeds - 1} after it have the seeds {model}, the first {seeds} runs {first}; "
                f"with --seeds {seeds} all runs of a model stand together, one for each seed, and every model has the same seeds in the same order."
            )
    return results


def titles(folders: Sequence[Path], *, seeds: int = 1) -> list[str]:
    """What each model is called in a table: its first folder, how many more it has, and its protocol where the models' differ."""
    protocols = [str(json.loads((folder / METRICS).read_text(encoding="utf-8"))["protocol"]) for folder in folders]
    more = f" and {seeds - 1} more" if seeds > 1 else ""
    return [
        f"{folder}{more}" + (f" ({protocol})" if len(set(protocols)) > 1 else "") for folder, protocol in zip(folders[::seeds], protocols[::seeds], strict=True)
    ]


def as_markdown(rows: Sequence[Row], names: Sequence[str]) -> str:
    """A table of runs; behind each value the 95 % interval of its difference to the first run, bold where it excludes zero."""
    head = f"| score | {' | '.join(names)} |\n|---|{'---:|' * len(names)}\n"
    return head + "".join(f"| {row.name} | {' | '.join(_cells(row))} |\n" for row in rows)


def as_text(rows: Sequence[Row], names: Sequence[str]) -> str:
    """The same for a terminal; a star marks differences whose interval excludes zero."""
    table = [["score", *names], *([row.name, *(cell.replace("**", "*") for cell in _cells(row))] for row in rows)]
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in table)


def _cells(row: Row) -> list[str]:
    shown = ["" if value is None else f"{value:.3f}" for value in row.values]
    for place, change in enumerate(row.changes, 1):
        if change is not None and change[0] == change[0]:
            sure = "**" if change[0] > 0 or change[1] < 0 else ""
            shown[place] += f" ({sure}{change[0]:+.3f} to {change[1]:+.3f}{sure})"
    return shown


def _same(where: Path, first: Result, other: Path, result: Result) -> None:
    if not first.rule.counts_as(result.rule):
        raise ValueError(f"{where} was scored by the protocol {first.protocol}, {other} by {result.protocol}; test both by one.")
    if first.said["data_fingerprint"] != result.said["data_fingerprint"]:
        raise ValueError(
            f"{where} and {other} were not tested on the same questions: {first.data} ({len(first.outcomes)} dialogues) and "
            f"{result.data} ({len(result.outcomes)} dialogues), or another state of the same set. Test both on one."
        )
