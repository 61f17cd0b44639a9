"""What a test has scored so far, on disk: a test that was killed goes on from there, on as many ranks as one likes."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geopix.evaluation.outcome import Outcome, from_json
from geopix.evaluation.ranks import everywhere, wait


@dataclass(frozen=True)
class Earlier:
    """What an interrupted test has left.

    Args:
        done: positions of the images that were scored.
        outcomes: of all their dialogues.
        other: whether a journal of another test was found; it is not used.
    """

    done: frozenset[int]
    outcomes: tuple[Outcome, ...]
    other: bool


class Journal:
    """One file per rank in a folder, one line per batch, written out at once; a line that was cut off counts as not written.

    Args:
        folder: of the test.
        said: all that decides its outcomes. A journal that says something else belongs to another test.
        rank: of this process.
    """

    def __init__(self, folder: Path, said: Mapping[str, Any], rank: int = 0) -> None:
        self.folder, self.rank = folder, rank
        self._head = json.dumps({"test": said}, sort_keys=True)

    @property
    def path(self) -> Path:
        """This rank's file."""
        return self.folder / f"journal-{self.rank}.jsonl"

    def open(self, *, resume: bool = True) -> Earlier:
        """Read what all ranks have left, on whichever machine, and start anew with it. Every rank must call this.

        Args:
            resume: use what is there; otherwise it is forgotten.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        mine: list[str] = []
        other = False
        for path in sorted(self.folder.glob("journal-*.jsonl")) if resume else ():
            head, *rest = path.read_text(encoding="utf-8").split("\n")[:-1] or [""]
            other |= head != self._head
            mine += rest if head == self._head else []
        told = everywhere((mine, other))  # folders of several machines need not be one
        lines = list(dict.fromkeys(line for part, _ in told for line in part))
        for path in self.folder.glob("journal-*.jsonl") if self.rank == 0 else ():
            path.unlink()
        wait()
        self._write([self._head, *(lines if self.rank == 0 else [])])
        read = [json.loads(line) for line in lines]
        found = [from_json(outcome) for line in read for outcome in line["outcomes"]]
        return Earlier(frozenset(image for line in read for image in line["images"]), tuple(found), any(another for _, another in told))

    def add(self, images: Sequence[int], outcomes: Sequence[Outcome]) -> None:
        """Note a batch: positions of its images, and what became of their dialogues."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"images": list(images), "outcomes": [outcome.as_json() for outcome in outcomes]}) + "\n")

    def remove(self) -> None:
        """Forget it: the test is finished and its results are written."""
        self.path.unlink(missing_ok=True)

    def _write(self, lines: Sequence[str]) -> None:
        part = self.path.with_suffix(".part")
        part.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        os.replace(part, self.path)
