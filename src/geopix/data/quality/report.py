"""What a look at files of records found: problems, which must be dealt with, and notes, which are worth knowing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

SHOWN = 5
"""Examples that a report shows of each kind."""

UNREADABLE = "line that is no record"
HALF = "half-written last line"
ENCODING = "text that is not UTF-8"
FORM = "record of another form"
BACKSLASH = "path with backslashes"
NO_IMAGE = "missing image"
BAD_IMAGE = "unreadable image"
IMAGE_SIZE = "image of another size than stated"
IDS = "instance ids"
NO_MASK_FILE = "missing mask file"
BAD_MASK = "mask that does not decode"
MASK_SIZE = "mask of another size than the image"
EMPTY_MASK = "empty mask"
BOX_MASK = "box that disagrees with its mask"
BOX_OUTSIDE = "box outside the image"
BOX_INVERTED = "inverted box"
SEGS = "[SEG] against targets"
CLASS = "class outside the vocabulary"
EMPTY_TEXT = "empty text"
KEY = "duplicate key"
QUESTION = "duplicate question"
LEAK_PATH = "leak: the same image in two splits"
LEAK_BYTES = "leak: the same bytes in two splits"
LEAK_NEAR = "leak: nearly the same image in two splits"

LEAKS = frozenset({LEAK_PATH, LEAK_BYTES, LEAK_NEAR})
REPAIRED = {
    ENCODING: "text decoded as cp1252",
    BACKSLASH: "paths with forward slashes",
    BOX_MASK: "box computed from its mask",
    BOX_OUTSIDE: "box computed from its mask, or clipped",
    BOX_INVERTED: "box computed from its mask, or turned",
    QUESTION: "repeated dialogue taken out",
}
"""What ``--fix`` can repair, and how; the rest goes to quarantine."""

NEXT = {
    NO_IMAGE: "put the files there, or write paths from the folder of the JSONL",
    BAD_IMAGE: "download or export these files again",
    CLASS: "rename the classes or add them to the vocabulary",
    KEY: "give each record a key of its own",
    LEAK_PATH: "geopix data split never divides an image",
    LEAK_BYTES: "geopix data split never divides an image",
    LEAK_NEAR: "geopix data split never divides such images",
} | dict.fromkeys(REPAIRED, "--fix repairs it where it can")


class Problem(NamedTuple):
    """One thing that is wrong, or worth knowing, with a record.

    Args:
        kind: one of those above, or a note in words.
        line: from 1; 0 for the file as a whole.
        key: of the record; "" where it cannot be read.
        what: what was found and what was expected.
    """

    kind: str
    line: int
    key: str
    what: str

    def where(self) -> str:
        """The record in words."""
        return ", ".join([f"line {self.line}"] * bool(self.line) + [self.key] * bool(self.key)) or "the file"


@dataclass
class Findings:
    """Everything found in one file.

    Args:
        name: of the file.
        counts: records, dialogues, instances.
        splits, tasks: records by split and dialogues by task.
        problems: in the order of the file's lines.
        noted: how often each thing that is no problem was found.
        notes: the first of each.
    """

    name: str
    counts: Counter[str] = field(default_factory=Counter)
    splits: Counter[str] = field(default_factory=Counter)
    tasks: Counter[str] = field(default_factory=Counter)
    problems: list[Problem] = field(default_factory=list)
    noted: Counter[str] = field(default_factory=Counter)
    notes: list[Problem] = field(default_factory=list)

    def note(self, note: Problem) -> None:
        """Counts something that is no problem; such things may be as many as records, so only the first are kept."""
        self.noted[note.kind] += 1
        if self.noted[note.kind] <= SHOWN:
            self.notes.append(note)

    def as_text(self) -> str:
        """For the terminal."""
        held = ", ".join(f"{self.counts[name]} {name}" for name in ("records", "dialogues", "instances"))
        lines = [f"{self.name}: {held}"]
        lines += [f"  splits: {_listed(self.splits)}"] if self.splits else []
        lines += [f"  tasks: {_listed(self.tasks)}"] if self.tasks else []
        affected = len({problem.line for problem in self.problems})
        lines.append(f"  {len(self.problems)} problem(s) in {affected} line(s)" if self.problems else "  no problem found")
        for kind, group in _grouped(self.problems):
            lines.append(f"  - {kind}: {len(group)}{f' ({NEXT[kind]})' if kind in NEXT else ''}")
            lines += [f"      {problem.where()}: {problem.what}" for problem in group[:SHOWN]]
            lines += [f"      ... and {len(group) - SHOWN} more"] if len(group) > SHOWN else []
        if self.notes:
            lines.append("  worth knowing")
        for kind, group in _grouped(self.notes):
            more = "; ..." if self.noted[kind] > SHOWN else ""
            lines.append(f"  - {kind}: {self.noted[kind]} ({'; '.join(note.where() for note in group)}{more})")
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        """For programs: the same, with every problem, and the first of all notes."""
        return {
            "file": self.name,
            "counts": dict(self.counts),
            "splits": dict(self.splits),
            "tasks": dict(self.tasks),
            "problems": {kind: [problem._asdict() for problem in group] for kind, group in _grouped(self.problems)},
            "notes": {kind: {"count": self.noted[kind], "first": [note._asdict() for note in group]} for kind, group in _grouped(self.notes)},
        }


def _grouped(problems: Iterable[Problem]) -> list[tuple[str, Sequence[Problem]]]:
    """By kind, the most frequent first."""
    groups: dict[str, list[Problem]] = {}
    for problem in problems:
        groups.setdefault(problem.kind, []).append(problem)
    return sorted(groups.items(), key=lambda item: -len(item[1]))


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.most_common())
