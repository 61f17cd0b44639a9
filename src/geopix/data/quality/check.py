"""Checking one line of a JSONL: its form, its image, its masks and boxes, its dialogues."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from geopix.data.index import DEFAULT_TASK
from geopix.data.instances import InstanceMasks
from geopix.data.quality import report
from geopix.data.quality.pictures import Look, look_at
from geopix.data.quality.report import Problem
from geopix.data.records import Record
from geopix.data.schema import PATH as SCHEMA
from geopix.data.schema import fault
from geopix.types import SEG

AGREE = 0.3
"""IoU of a box and the tight box of its mask below which they are not about the same thing."""

SLACK = 1.0
"""Pixels that a box may reach beyond the image: rounding."""

CROWDED = 10_000
"""Instances of one image from which it is worth knowing."""

KNOWN = frozenset(json.loads(SCHEMA.read_text(encoding="utf-8"))["properties"])


@dataclass
class Checked:
    """A line after checking.

    Args:
        line: from 1.
        key: the record's; "" where it cannot be read.
        split: None where it has none.
        image: the file of its image, absolute.
        window: the part of it that the record is about; None for all of it.
        look: what reading the image told.
        questions: a number for each dialogue, equal for equal words about the same image.
        tasks: of each dialogue.
        instances: how many.
        problems, notes: what was found.
    """

    line: int
    key: str = ""
    split: str | None = None
    image: str = ""
    window: tuple[int, int, int, int] | None = None
    look: Look | None = None
    questions: list[int] = field(default_factory=list)
    tasks: list[str] = field(default_factory=list)
    instances: int = 0
    problems: list[Problem] = field(default_factory=list)
    notes: list[Problem] = field(default_factory=list)

    def problem(self, kind: str, what: str) -> None:
        """Adds a problem of this line."""
        self.problems.append(Problem(kind, self.line, self.key, what))

    def note(self, kind: str, what: str = "") -> None:
        """Adds something worth knowing about this line."""
        self.notes.append(Problem(kind, self.line, self.key, what))


def check_line(raw: bytes, line: int, root: Path, vocabulary: frozenset[str] | None = None) -> Checked:
    """All that can be said of a line by itself.

    Args:
        raw: the line with its end; the last one of a file may lack it.
        line: its number, from 1.
        root: the folder that paths start from.
        vocabulary: the class names that are allowed; None allows all.
    """
    checked = Checked(line)
    text, decoded = decode(raw)
    try:
        record = json.loads(text)
    except ValueError as error:
        checked.problem(
            report.UNREADABLE if raw.endswith(b"\n") else report.HALF, f"it is not valid JSON ({error}); {len(raw)} bytes, ending in {text[-30:]!r}."
        )
        return checked
    if not isinstance(record, dict):
        checked.problem(report.UNREADABLE, f"expected an object, found a {type(record).__name__}.")
        return checked
    checked.key = str(record.get("key", record.get("image", "")))
    if not decoded:
        letters = sorted({letter for letter in text if ord(letter) > 127})
        checked.problem(report.ENCODING, f"read as cp1252 it holds the letters {letters[:10]}; the format is UTF-8.")
    if forward_slashes(record):
        checked.problem(report.BACKSLASH, f"such as {record.get('image')!r} once repaired; paths are written with forward slashes.")
    if wrong := fault(record):
        checked.problem(report.FORM, f"{wrong}.")
        return checked
    checked.split = record.get("split")
    for name in sorted(set(record) - KNOWN):
        checked.note(f"field {name!r}, which nothing reads")
    _check_image(record, root, checked)
    _check_instances(record, root, checked, vocabulary)
    _check_dialogues(record, checked)
    return checked


def decode(raw: bytes) -> tuple[str, bool]:
    """The text of a line, and whether it was UTF-8; cp1252 otherwise, or Latin-1 where that leaves bytes undefined."""
    try:
        return raw.decode("utf-8-sig"), True
    except UnicodeDecodeError:
        codec = "latin-1" if any(byte in raw for byte in b"\x81\x8d\x8f\x90\x9d") else "cp1252"
        return raw.decode(codec), False


def forward_slashes(record: Record) -> bool:
    """Writes the record's paths with forward slashes; whether there were others."""
    masks = [entry["mask"] for entry in _dicts(record.get("instances")) if isinstance(entry.get("mask"), dict)]
    places: list[tuple[dict[str, Any], str]] = [(record, "image"), *((mask, "png") for mask in masks)]
    found = [(owner, name) for owner, name in places if isinstance(owner.get(name), str) and "\\" in owner[name]]
    for owner, name in found:
        owner[name] = owner[name].replace("\\", "/")
    return bool(found)


def masks_of(record: Record, root: Path, height: int, width: int) -> InstanceMasks:
    """The record's masks, at the size of its image."""
    return InstanceMasks(record, lambda path: root / path, height, width)


def tight_box(mask: Bool[np.ndarray, "h w"]) -> list[int]:
    """The half-open box around a mask that has pixels."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]


def box_fault(box: Sequence[float | int], height: int, width: int, mask: Bool[np.ndarray, "h w"] | None) -> tuple[str, str] | None:
    """Kind and words of what is wrong with a box, or None."""
    x1, y1, x2, y2 = box
    if x2 < x1 or y2 < y1:
        return report.BOX_INVERTED, f"the box {list(box)} ends before it begins; expected [x1, y1, x2, y2] with x1 < x2 and y1 < y2."
    if x1 < -SLACK or y1 < -SLACK or x2 > width + SLACK or y2 > height + SLACK:
        return report.BOX_OUTSIDE, f"the box {list(box)} reaches beyond the image of {width} x {height} (columns x rows)."
    if mask is not None and mask.any():
        tight = tight_box(mask)
        if (iou := _overlap(box, tight)) < AGREE:
            return report.BOX_MASK, f"the box {list(box)} and its mask, whose own box is {tight}, have IoU {iou:.2f}; expected at least {AGREE}."
    return None


def image_of(record: Record, root: Path) -> tuple[str, tuple[int, int, int, int] | None]:
    """The file that a record is about, absolute, and the part of it."""
    left, top, width, height = record.get("window") or (0, 0, 0, 0)
    return str((root / record["image"]).resolve()), (left, top, width, height) if record.get("window") else None


def question_number(record: Record, dialogue: dict[str, Any]) -> int:
    """A number of 64 bits, equal for equal words about the same image."""
    about = [record["image"], *(record.get("window") or ())]
    words = json.dumps([about, [[turn["prompt"], turn.get("answer", "")] for turn in dialogue["turns"]]])
    return int.from_bytes(hashlib.blake2b(words.encode(), digest_size=8).digest(), "little")


def _check_image(record: Record, root: Path, checked: Checked) -> None:
    path = root / record["image"]
    checked.image, checked.window = image_of(record, root)
    try:
        checked.look = look_at(path, record.get("window"))
    except FileNotFoundError as error:
        checked.problem(report.NO_IMAGE, str(error))
        return
    except ValueError as error:
        checked.problem(report.BAD_IMAGE, str(error))
        return
    for remark in checked.look.remarks:
        checked.note(remark, str(path))
    size = [checked.look.height, checked.look.width]
    if record.get("image_size", size) != size:
        checked.problem(report.IMAGE_SIZE, f"image_size is {record['image_size']} (rows, columns), but {path} is {size}.")


def _check_instances(record: Record, root: Path, checked: Checked, vocabulary: frozenset[str] | None) -> None:
    instances = record.get("instances", [])
    checked.instances = len(instances)
    if not instances or len(instances) >= CROWDED:
        checked.note("record without instances" if not instances else f"record of {CROWDED} instances or more", f"{len(instances)}")
    for entry in instances:
        if vocabulary is not None and entry.get("class") is not None and entry["class"] not in vocabulary:
            checked.problem(report.CLASS, f"instance {entry['id']!r} is of the class {entry['class']!r}.")
    if checked.look is None:
        return
    height, width = checked.look.height, checked.look.width
    try:
        reader = masks_of(record, root, height, width)
    except ValueError as error:
        checked.problem(report.IDS, str(error))
        return
    for entry in instances:
        mask = _mask(entry, reader, checked)
        if entry.get("box") is not None and (found := box_fault(entry["box"], height, width, mask)):
            checked.problem(found[0], f"instance {entry['id']!r}: {found[1]}")


def _mask(entry: dict[str, Any], reader: InstanceMasks, checked: Checked) -> Bool[np.ndarray, "h w"] | None:
    """An instance's mask; None, and a problem told, where there is none."""
    if "mask" not in entry:
        checked.note("instance without a mask", f"{entry['id']!r}")
        return None
    try:
        mask: np.ndarray = reader.mask(entry["id"]).numpy()
    except FileNotFoundError as error:
        checked.problem(report.NO_MASK_FILE, str(error))
        return None
    except (ValueError, TypeError, OverflowError) as error:
        other = (
            entry["mask"].get("size", [reader.height, reader.width]) != [reader.height, reader.width]
            or "must agree" in str(error)
            or "of another size" in str(error)
        )
        checked.problem(report.MASK_SIZE if other else report.BAD_MASK, str(error))
        return None
    if not mask.any():
        checked.problem(report.EMPTY_MASK, f"instance {entry['id']!r} has no pixel; leave such instances out.")
    return mask


def _check_dialogues(record: Record, checked: Checked) -> None:
    dialogues = record.get("dialogues", [])
    if not dialogues:
        checked.note("record without dialogues, which training refuses")
    known = {entry["id"]: entry for entry in record.get("instances", [])}
    for number, entry in enumerate(dialogues):
        where = f"dialogue {number}"
        checked.tasks.append(entry.get("task", DEFAULT_TASK))
        checked.questions.append(question_number(record, entry))
        for turn, said in enumerate(entry["turns"]):
            for name in ("prompt", "answer"):
                if not said.get(name, "").strip():
                    checked.problem(report.EMPTY_TEXT, f"{where}, turn {turn}: the {name} is empty.")
        for what in _targets(entry, known):
            checked.problem(report.SEGS, f"{where}: {what}")


def _targets(entry: dict[str, Any], known: dict[Any, dict[str, Any]]) -> Iterator[str]:
    """What is wrong between the answers of a dialogue and its targets."""
    targets = entry.get("targets", [])
    written = sum(turn.get("answer", "").count(SEG) for turn in entry["turns"])
    if written != len(targets):
        yield f"the answers hold {written} {SEG} but targets lists {len(targets)}; one list of instance ids per {SEG}, in order."
    for ids in targets:
        if unknown := [one for one in ids if one not in known]:
            yield f"targets name the instances {unknown}, which the record does not hold; it holds {list(known)[:20]}."
        elif len(ids) == 1 and known[ids[0]].get("distractor_only") and not entry.get("task", DEFAULT_TASK).endswith("/group"):
            yield f"instance {ids[0]!r} is distractor_only and cannot be the one target of a {SEG} outside a group."
        elif missing := [one for one in ids if "mask" not in known[one]]:
            yield f"targets name the instances {missing}, which have no mask."


def _overlap(first: Sequence[float | int], second: Sequence[float | int]) -> float:
    """IoU of two boxes."""
    across = max(0.0, min(first[2], second[2]) - max(first[0], second[0]))
    down = max(0.0, min(first[3], second[3]) - max(first[1], second[1]))
    union = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)) - across * down
    return across * down / union if union > 0 else 0.0


def _dicts(values: Any) -> list[dict[str, Any]]:
    return [value for value in values if isinstance(value, dict)] if isinstance(values, list) else []
