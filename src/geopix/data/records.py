"""Records: what one line of the JSONL format (``docs/data.md``) holds, and writing them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from geopix.types import Turn

Record = dict[str, Any]
"""One image: ``image``, ``key``, ``split``, ``licence``, ``source``, ``instances``, ``dialogues``; see ``docs/data.md``."""


def instance(
    name: int | str, mask: dict[str, Any], *, of_class: str | None = None, box: Sequence[float] | None = None, distractor_only: bool = False
) -> dict[str, Any]:
    """An object of a record.

    Args:
        name: its id, once per record.
        mask: ``{size, counts}``, ``{polygon}`` or ``{png, value}``, at the image's own size.
        of_class: class name in lower case with blanks ("storage tank"); None where unknown.
        box: ``x1 y1 x2 y2`` in pixels, half-open.
        distractor_only: never asked for alone.
    """
    entry: dict[str, Any] = {"id": name, "class": of_class}
    if box is not None:
        entry["box"] = [round(float(value), 3) for value in box]
    return entry | {"mask": mask} | ({"distractor_only": True} if distractor_only else {})


def dialogue(task: str, turns: Iterable[Turn | tuple[str, str]], targets: Sequence[Sequence[int | str]] = ()) -> dict[str, Any]:
    """A conversation of a record.

    Args:
        task: ``family/kind``.
        turns: prompts with their answers.
        targets: for each ``[SEG]`` of the answers, in order, the ids of the instances that it covers.
    """
    said = [turn if isinstance(turn, Turn) else Turn(*turn) for turn in turns]
    return {"task": task, "turns": [{"prompt": turn.prompt, "answer": turn.answer} for turn in said], "targets": [list(ids) for ids in targets]}


def line_of(record: Record) -> str:
    """A record as its line: the same record gives the same text."""
    return json.dumps(record, ensure_ascii=False, separators=(", ", ": "), allow_nan=False)


def write_records(path: Path, records: Iterable[Record]) -> int:
    """Writes a JSONL as a whole or not at all: an interrupted run leaves the file of before.

    Returns:
        The number of records.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    count = 0
    with part.open("w", encoding="utf-8", newline="\n") as file:
        for record in records:
            file.write(line_of(record) + "\n")
            count += 1
    part.replace(path)
    return count


def relative(path: Path, folder: Path) -> str:
    """A file's path as a record in ``folder`` writes it: with forward slashes, from that folder."""
    return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()
