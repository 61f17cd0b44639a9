"""The job as a whole: survey, shards, datasheet."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from geopix.data.build.compose import Choices, compose
from geopix.data.build.datasheet import write_datasheet
from geopix.data.build.rewrite import Rewriter, Rewriting
from geopix.data.build.shards import Made, clear, run_shards
from geopix.data.build.survey import survey
from geopix.data.build.words import Vocabulary
from geopix.data.records import Record, relative, write_records

VERSION = 1
"""Of the rules: a number that grows when the same input and choices give other records."""
SHARD = 32
KINDS: dict[type[Exception], str] = {FileNotFoundError: "missing file", ValueError: "wrong value", KeyError: "missing field", TypeError: "wrong type"}


@dataclass(frozen=True)
class Job:
    """What every worker needs to know.

    Args:
        source: the JSONL that is read.
        root: folder that the paths in it start from.
        output: the JSONL that is written; the paths in it start from its folder.
        choices: what is made of each image.
        together: the classes of the set.
        rewriter: reworded by; None for the rules' own words.
    """

    source: Path
    root: Path
    output: Path
    choices: Choices
    together: dict[str, dict[str, int]]
    rewriter: Rewriter | None = None

    def __call__(self, lines: tuple[tuple[int, int], ...]) -> Made:
        """The records of some lines, given by number and byte offset."""
        rewriting = None if self.rewriter is None else Rewriting(self.rewriter, Vocabulary(self.together))
        made = Made()
        with self.source.open("rb") as file:
            for number, offset in lines:
                file.seek(offset)
                record = json.loads(file.readline().decode("utf-8-sig"))
                made.tally["records read"] += 1
                try:
                    composed = compose(record, self._locate, self.choices, self.together, rewriting, made.tally)
                except (ValueError, FileNotFoundError, KeyError, TypeError) as error:
                    where = f"line {number}, {record.get('key', record['image'])}"
                    what = f"the field {error} is missing" if isinstance(error, KeyError) else str(error)
                    made.quarantine.append({"kind": next(kind for of, kind in KINDS.items() if isinstance(error, of)), "where": where, "what": what})
                    continue
                if composed is not None:
                    made.records.append(self._moved(composed))
        return made

    def _locate(self, path: str) -> Path:
        return self.root / path

    def _moved(self, record: Record) -> Record:
        """The record with paths that start from the output's folder."""
        for entry in record["instances"]:
            if isinstance(entry.get("mask"), dict) and "png" in entry["mask"]:
                entry["mask"] = entry["mask"] | {"png": self._path(entry["mask"]["png"])}
        return record | {"image": self._path(record["image"])}

    def _path(self, path: str) -> str:
        return _relative(self.root / path, self.output.parent)


@cache
def _relative(path: Path, folder: Path) -> str:
    return relative(path, folder)


def run(
    source: Path, output: Path, choices: Choices, *, root: Path | None = None, workers: int = 1, rewriter: Rewriter | None = None,
    rewritten_by: str | None = None, restart: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Makes a set with dialogues from a JSONL with instances.

    Args:
        source: the JSONL that is read.
        output: the JSONL to write; ``<name>.datasheet.md``, ``<name>.datasheet.json`` and, where something was left out, ``<name>.quarantine.jsonl`` beside it.
        choices: what is made of each image.
        root: folder that the paths in the input start from; its own unless given.
        workers: processes.
        rewriter: words phrases anew; must be picklable when there are several workers.
        rewritten_by: its name for the datasheet.
        restart: do not go on with an interrupted run.

    Returns:
        The datasheet.

    Raises:
        FileNotFoundError, ValueError: when the input is no set, or parts of another job are in the way.
    """
    if source.resolve() == output.resolve():
        raise ValueError(f"the output {output} is the input; a set is never changed in place. Name another file.")
    seen = survey(source)
    output.parent.mkdir(parents=True, exist_ok=True)
    job = Job(source, source.parent if root is None else root, output, choices, seen.together, rewriter)
    settings = {"version": VERSION, "choices": asdict(choices), "rewriter": rewritten_by}
    shards = [seen.lines[start : start + SHARD] for start in range(0, len(seen.lines), SHARD)]
    made = run_shards(job, shards, output, settings | {"input": seen.sha256, "root": str(job.root.resolve())}, workers=workers, restart=restart)
    quarantine = [*seen.bad, *made.quarantine]
    held = output.with_name(f"{output.stem}.quarantine.jsonl")
    if quarantine:
        write_records(held, quarantine)
    else:
        held.unlink(missing_ok=True)
    sheet = write_datasheet(output, source.name, settings, seen, made.tally, quarantine)
    clear(output)
    return sheet
