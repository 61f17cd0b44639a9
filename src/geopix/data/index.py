"""Where each record of a JSONL stands and what it holds in short, so that a file of any size is opened at once.

The index of a large file is saved beside it, in ``NAME.jsonl.index``, or in the user's cache folder where that place cannot be written. It holds for
one state of the file (size and time of change); when the file changes it is made anew. Arrays are mapped from disk: processes share one copy.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from array import array
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, Integer, UInt16, UInt32, UInt64

from geopix.data.images import describe

LOG = logging.getLogger(__name__)

VERSION = 1
"""Of the saved form. One that another version wrote is made anew."""

SAVED_FROM = 1 << 20
"""Bytes from which a file's index is saved; smaller files are read in a moment."""

DEFAULT_TASK = "segment/single"
"""Of a dialogue that names none."""

STALE_AFTER = 3600
"""Seconds after which what an interrupted run left behind is removed."""


@dataclass(frozen=True)
class Index:
    """The records of a JSONL in short; all but empty lines count, those that cannot be read too.

    Args:
        offsets: byte at which each record begins.
        lines: its line, from 1.
        splits: its split, a position in ``split_names``; 0 is a line that cannot be read.
        order: the records of the first split, then those of the next; within one as in the file.
        first: where its tasks begin in ``tasks``; one number more than there are records.
        tasks: the task of each dialogue, a position in ``task_names``.
        keys: a number made from each key: equal keys have equal numbers.
        split_names: the first stands for lines that cannot be read; None for records without a split.
        task_names: all tasks of the file.
        folder: where the arrays are mapped from; None when they are in memory.
    """

    offsets: Int64[np.ndarray, " n"]
    lines: UInt32[np.ndarray, " n"]
    splits: UInt16[np.ndarray, " n"]
    order: UInt32[np.ndarray, " n"]
    first: Int64[np.ndarray, " starts"]
    tasks: UInt16[np.ndarray, " dialogues"]
    keys: UInt64[np.ndarray, " n"]
    split_names: tuple[str | None, ...]
    task_names: tuple[str, ...]
    folder: Path | None = None

    def __reduce__(self) -> tuple[Callable[..., Index], tuple[Any, ...]]:
        """A process that gets a saved index maps it by itself instead of receiving a copy."""
        return (Index, tuple(vars(self).values())) if self.folder is None else (_load, (self.folder,))

    def __len__(self) -> int:
        return len(self.offsets)

    def tasks_of(self, row: int) -> tuple[str, ...]:
        """The task of each dialogue of a record."""
        return tuple(self.task_names[code] for code in self.tasks[self.first[row] : self.first[row + 1]].tolist())

    def task_counts(self, rows: Integer[np.ndarray, " some"] | None = None) -> Counter[str]:
        """Dialogues by task, of some records or of all."""
        tasks = self.tasks if rows is None else self.tasks[_spans(self.first, rows)]
        counts = np.bincount(tasks, minlength=len(self.task_names)).tolist()
        return Counter({name: count for name, count in zip(self.task_names, counts, strict=True) if count})

    def split_counts(self) -> Counter[str | None]:
        """Records by split; lines that cannot be read are left out."""
        counts = np.bincount(self.splits, minlength=len(self.split_names)).tolist()
        return Counter(dict(list(zip(self.split_names, counts, strict=True))[1:]))

    def of_split(self, split: str) -> Integer[np.ndarray, " some"]:
        """The records of a split, ascending, and with them the lines that cannot be read, which may belong to it."""
        bounds = np.searchsorted(self.splits, range(len(self.split_names) + 1), sorter=self.order)
        parts = [self.order[bounds[code] : bounds[code + 1]] for code, name in enumerate(self.split_names) if code == 0 or name == split]
        parts = [part for part in parts if len(part)]
        return np.sort(np.concatenate(parts)) if len(parts) > 1 else parts[0] if parts else self.order[:0]

    def allowed(self, of_task: Callable[[str], bool]) -> np.ndarray:
        """For each record whether one of its dialogues has a task that ``of_task`` allows."""
        good = np.array([of_task(name) for name in self.task_names], dtype=bool)
        passed = np.concatenate([[0], np.cumsum(good[self.tasks], dtype=np.int64)]) if len(good) else np.zeros(1, dtype=np.int64)
        return np.asarray(passed[self.first[1:]] > passed[self.first[:-1]])

    def rows_of_key(self, key: str) -> list[int]:
        """The records that may have this key: nearly always one."""
        return np.flatnonzero(self.keys == np.uint64(key_number(key))).tolist()


def open_index(path: Path) -> Index:
    """The index of a JSONL: the saved one where it holds, else a new one, which is saved.

    Raises:
        ValueError: when the file is no JSONL, such as a git-lfs pointer.
    """
    state = path.stat()
    with path.open("rb") as file:
        head = file.readline(4096)
    if head.startswith((b"version https://git-lfs", b"<", b"PK\x03\x04")) or b"\0" in head:
        raise ValueError(f"{path} is no JSONL: {describe(path)}.")
    if state.st_size < SAVED_FROM:
        return scan(path)
    name = f"{state.st_size}-{state.st_mtime_ns}-v{VERSION}"
    homes = path.with_name(f"{path.name}.index"), _cache() / hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:20]
    for home in homes:
        if (home / name).is_dir():
            try:
                return _load(home / name)
            except (OSError, ValueError, KeyError) as error:
                LOG.warning("the index %s cannot be read (%s); it is made anew.", home / name, error)
                shutil.rmtree(home / name, ignore_errors=True)
    began = time.perf_counter()
    LOG.info("reading %s once to index it (%.1f GB) ...", path, state.st_size / 1e9)
    index = scan(path)
    LOG.info("indexed %d records of %s in %.0f s", len(index), path, time.perf_counter() - began)
    after = path.stat()
    if (after.st_size, after.st_mtime_ns) != (state.st_size, state.st_mtime_ns):
        LOG.warning("%s changed while it was read; its index is not saved.", path)
        return index
    for home in homes:
        try:
            return _save(index, home / name)
        except OSError as error:
            reason = error
    LOG.warning("the index of %s can be saved neither in %s nor in %s (%s); every process reads the whole file.", path, *homes, reason)
    return index


def scan(path: Path) -> Index:
    """Reads the file once, one line at a time."""
    offsets, lines, splits, first, tasks, keys = array("q"), array("I"), array("H"), array("q", [0]), array("H"), array("Q")
    split_codes: dict[tuple[str | None] | None, int] = {None: 0}
    task_codes: dict[str, int] = {}
    offset = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.isspace():
                split, said, key = _short(line)
                offsets.append(offset)
                lines.append(number)
                keys.append(key_number(key))
                splits.append(split_codes.setdefault(split, len(split_codes)))
                tasks.extend([task_codes.setdefault(task, len(task_codes)) for task in said])
                first.append(len(tasks))
                if max(len(task_codes), len(split_codes)) > 60_000:
                    raise ValueError(f"{path}: more than 60,000 different tasks or splits by line {number}; found such as {list(task_codes)[-3:]}.")
            offset += len(line)
    codes = np.frombuffer(splits, dtype=np.uint16) if splits else np.zeros(0, dtype=np.uint16)
    return Index(
        offsets=np.array(offsets, dtype=np.int64),
        lines=np.array(lines, dtype=np.uint32),
        splits=codes,
        order=np.argsort(codes, kind="stable").astype(np.uint32),
        first=np.array(first, dtype=np.int64),
        tasks=np.array(tasks, dtype=np.uint16),
        keys=np.array(keys, dtype=np.uint64),
        split_names=tuple(None if code is None else code[0] for code in split_codes),
        task_names=tuple(task_codes),
    )


def key_number(key: str) -> int:
    """A number of 64 bits that stands for a key."""
    return int.from_bytes(hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def _short(line: bytes) -> tuple[tuple[str | None] | None, list[str], str]:
    """Split, tasks and key of a line; None for the split when it is no record."""
    try:
        record = json.loads(line)
    except ValueError:
        return None, [], ""
    if not isinstance(record, dict):
        return None, [], ""
    split, dialogues = record.get("split"), record.get("dialogues")
    tasks = [str(entry.get("task", DEFAULT_TASK)) if isinstance(entry, dict) else DEFAULT_TASK for entry in dialogues] if isinstance(dialogues, list) else []
    return (None if split is None else str(split),), tasks, str(record.get("key", record.get("image", "")))


def _spans(first: Int64[np.ndarray, " starts"], rows: Integer[np.ndarray, " some"]) -> Int64[np.ndarray, " dialogues"]:
    """Positions of the tasks of some records."""
    counts = first[rows.astype(np.int64) + 1] - first[rows]
    ends = np.cumsum(counts)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(first[rows] - (ends - counts), counts)


def _load(folder: Path) -> Index:
    names = json.loads((folder / "names.json").read_text(encoding="utf-8"))
    offsets, lines, splits, order, first, tasks, keys = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ARRAYS)
    return Index(offsets, lines, splits, order, first, tasks, keys, tuple(names["splits"]), tuple(names["tasks"]), folder)


ARRAYS = ("offsets", "lines", "splits", "order", "first", "tasks", "keys")


def _save(index: Index, folder: Path) -> Index:
    """Saves as a whole or not at all, however many processes do so at once, and gives the index mapped from disk."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=".part-", dir=folder.parent))
    try:
        for name, values in zip(ARRAYS, vars(index).values(), strict=False):
            np.save(part / f"{name}.npy", values)
        (part / "names.json").write_text(json.dumps({"splits": index.split_names, "tasks": index.task_names}), encoding="utf-8")
        part.chmod(0o755)
        part.rename(folder)
    except OSError:
        shutil.rmtree(part, ignore_errors=True)
        if not folder.is_dir():  # else another process was first, with the same content
            raise
    _clear(folder.parent, folder.name)
    return _load(folder)


def _clear(home: Path, keep: str) -> None:
    """Removes indices of earlier states of the file, and what interrupted runs left."""
    for other in home.iterdir():
        try:
            if other.name != keep and (not other.name.startswith(".part-") or time.time() - other.stat().st_mtime > STALE_AFTER):
                shutil.rmtree(other)
        except OSError as error:
            LOG.debug("%s was removed by another process, or cannot be: %s", other, error)


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "geopix" / "index"
