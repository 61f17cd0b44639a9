"""Repairing records into a new file. What cannot be repaired goes to a quarantine file, with its line, what is wrong and why; the input stays as it is."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from geopix.data.quality import report
from geopix.data.quality.check import box_fault, check_line, decode, forward_slashes, masks_of, question_number, tight_box
from geopix.data.quality.lines import read_lines
from geopix.data.quality.pictures import own_size
from geopix.data.quality.report import Problem
from geopix.data.records import Record, line_of, relative, write_records

BOXES = frozenset({report.BOX_MASK, report.BOX_OUTSIDE, report.BOX_INVERTED})


@dataclass
class Fixed:
    """What repairing did.

    Args:
        written: records in the new file.
        repairs: how often each was made.
        quarantined: records moved to quarantine, by the first of their problems.
    """

    written: int = 0
    repairs: Counter[str] = field(default_factory=Counter)
    quarantined: Counter[str] = field(default_factory=Counter)


def fix_file(path: Path, problems: Iterable[Problem], out: Path, quarantine: Path, *, vocabulary: frozenset[str] | None = None) -> Fixed:
    """Writes what is right or can be repaired to ``out``, the rest to ``quarantine``; every record of the input is in one of them.

    Args:
        path: the JSONL, which is only read.
        problems: what checking found in it.
        out: the new JSONL; paths in it start from its own folder.
        quarantine: a JSONL of ``{line, key, problems: [{kind, what}], text}``.
        vocabulary: as in checking.

    Raises:
        ValueError: when a file would be written over the input or over the other.
    """
    if len({file.resolve() for file in (path, out, quarantine)}) != 3:
        raise ValueError(f"input, output and quarantine must be three files; found {path}, {out} and {quarantine}. Nothing is repaired in place.")
    wrong: dict[int, list[Problem]] = defaultdict(list)
    for problem in problems:
        wrong[problem.line].append(problem)
    fixed = Fixed()
    set_aside: list[dict[str, Any]] = []
    fixed.written = write_records(out, _repaired(path, wrong, out.parent, vocabulary, fixed, set_aside))
    write_records(quarantine, set_aside)
    return fixed


def quarantine_file(path: Path, problems: Iterable[Problem], quarantine: Path) -> int:
    """Writes the records that have problems, repaired or not, to a quarantine file alone; returns how many there are."""
    wrong: dict[int, list[Problem]] = defaultdict(list)
    for problem in problems:
        wrong[problem.line].append(problem)
    return write_records(quarantine, (_entry(raw, line, wrong[line]) for raw, line in read_lines(path) if line in wrong))


def _repaired(
    path: Path, wrong: dict[int, list[Problem]], folder: Path, vocabulary: frozenset[str] | None, fixed: Fixed, set_aside: list[dict[str, Any]]
) -> Iterator[Record]:
    keys: set[str] = set()
    questions: set[int] = set()
    for raw, line in read_lines(path):
        left, record, done = _repair(raw, line, path.parent, wrong.get(line, []), questions, vocabulary)
        if record is not None and str(record.get("key", record["image"])) in keys:
            left = [*left, *(problem for problem in wrong.get(line, []) if problem.kind == report.KEY)]
        if left or record is None:
            fixed.quarantined[left[0].kind] += 1
            set_aside.append(_entry(raw, line, left))
            continue
        fixed.repairs.update(done)
        keys.add(str(record.get("key", record["image"])))
        questions.update(question_number(record, entry) for entry in record.get("dialogues", []))
        yield moved(record, path.parent, folder)


def _repair(
    raw: bytes, line: int, root: Path, problems: list[Problem], asked: set[int], vocabulary: frozenset[str] | None
) -> tuple[list[Problem], Record | None, list[str]]:
    """What is still wrong with a record, the record, and the repairs that were made."""
    kinds = {problem.kind for problem in problems}
    text, _ = decode(raw)
    if kinds & {report.UNREADABLE, report.HALF}:
        return problems, None, []
    record = json.loads(text)
    if not problems:
        return [], record, []
    forward_slashes(record)
    done = [repair for kind, repair in report.REPAIRED.items() if kind in kinds and kind not in BOXES | {report.QUESTION}]
    if kinds & BOXES:
        done += _repair_boxes(record, root)
    again = check_line((line_of(record) + "\n").encode(), line, root, vocabulary)
    left = again.problems + [problem for problem in problems if problem.kind in report.LEAKS]
    if report.QUESTION in kinds and not left:
        done += [report.REPAIRED[report.QUESTION]] * _take_out_repeated(record, asked)
        if not record["dialogues"]:
            left = [problem for problem in problems if problem.kind == report.QUESTION]
    return left, record, done


def _repair_boxes(record: Record, root: Path) -> list[str]:
    """Gives wrong boxes the extent of their masks; without a mask an inverted one is turned and one that reaches out is clipped."""
    try:
        height, width = own_size(record, root)
        reader = masks_of(record, root, height, width)
    except (ValueError, FileNotFoundError):
        return []  # told again by the check that follows
    done: list[str] = []
    for entry in record.get("instances", []):
        try:
            mask: Bool[np.ndarray, "h w"] | None = reader.mask(entry["id"]).numpy() if "mask" in entry else None
        except (ValueError, FileNotFoundError):
            mask = None  # told again by the check that follows
        if entry.get("box") is None or (found := box_fault(entry["box"], height, width, mask)) is None:
            continue
        x1, y1, x2, y2 = entry["box"]
        turned = [min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)]
        clipped = [min(max(value, 0), side) for value, side in zip(turned, (width, height) * 2, strict=True)]
        if mask is not None and mask.any():
            entry["box"] = tight_box(mask)
        elif clipped[0] < clipped[2] and clipped[1] < clipped[3]:
            entry["box"] = clipped
        else:
            continue  # nothing of it lies in the image; told again by the check that follows
        done.append(report.REPAIRED[found[0]])
    return done


def _take_out_repeated(record: Record, asked: set[int]) -> int:
    """Leaves the dialogues that nothing before asked; returns how many were taken out."""
    kept, seen = [], set(asked)
    for entry in record["dialogues"]:
        number = question_number(record, entry)
        if number not in seen:
            kept.append(entry)
        seen.add(number)
    taken = len(record["dialogues"]) - len(kept)
    record["dialogues"] = kept
    return taken


def moved(record: Record, root: Path, folder: Path) -> Record:
    """A record of one folder as a file in another writes it."""
    if root.resolve() == folder.resolve():
        return record
    for entry in record.get("instances", []):
        if "png" in entry.get("mask", {}):
            entry["mask"]["png"] = relative(root / entry["mask"]["png"], folder)
    return record | {"image": relative(root / record["image"], folder)}


def _entry(raw: bytes, line: int, problems: list[Problem]) -> dict[str, Any]:
    return {
        "line": line,
        "key": next((problem.key for problem in problems if problem.key), ""),
        "problems": [{"kind": problem.kind, "what": problem.what} for problem in problems],
        "text": decode(raw)[0].rstrip("\r\n"),
    }
