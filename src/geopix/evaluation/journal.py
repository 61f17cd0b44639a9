"""What a test has scored so far, on disk: a test that was killed goes on from there, on as many ranks as one likes."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from geopix.evaluation.outcome import Outcome, from_json


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

    def open(self) -> Earlier:
        """Read what all ranks have left, and start anew with it. Every rank must call this."""
        self.folder.mkdir(parents=True, exist_ok=True)
        lines: dict[str, dict[str, Any]] = {}
        other = False
        for path in sorted(self.folder.glob("journal-*.jsonl")):
            head, *rest = path.read_text(encoding="utf-8").split("\n")[:-1] or [""]
            other |= head != self._head
            lines |= {line: json.loads(line) for line in rest} if head == self._head else {}
        _wait()
        if self.rank == 0:
            self._write([self._head, *lines])
        _wait()
        if self.rank:
            self._write([self._head])
        for stale in self.folder.glob("journal-*.jsonl") if self.rank == 0 else ():
            if int(stale.stem.partition("-")[2]) >= _world():
                stale.unlink()
        found = [from_json(outcome) for line in lines.values() for outcome in line["outcomes"]]
        return Earlier(frozenset(image for line in lines.values() for image in line["images"]), tuple(found), other)

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


def _wait() -> None:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()


def _world() -> int:
    return torch.distributed.get_world_size() if torch.distributed.is_available() and torch.distributed.is_initialized() else 1
