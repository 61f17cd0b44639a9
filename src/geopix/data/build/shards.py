"""Work in shards: by several processes, the same bytes for any number of them, and resumable after a kill without loss or duplicates.

A shard is finished when its two files stand in the folder of parts; each is written under another name first and renamed. A run that finds parts of the
same job goes on with what is missing; parts of another job are refused.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import cv2

from geopix.data.records import Record, line_of

LOG = logging.getLogger(__name__)


@dataclass
class Made:
    """What one shard gave.

    Args:
        records: in the order of the input.
        tally: counts of everything that happened.
        quarantine: what was left out: ``kind``, ``where``, ``what``.
    """

    records: list[Record] = field(default_factory=list)
    tally: Counter[str] = field(default_factory=Counter)
    quarantine: list[dict[str, str]] = field(default_factory=list)


Work = Callable[[Any], Made]


def run_shards(work: Work, shards: Sequence[Any], output: Path, job: dict[str, Any], *, workers: int, restart: bool = False) -> Made:
    """Does the work of all shards and joins their records in ``output``.

    Args:
        work: of one shard; picklable, and the same for the same shard whoever does it.
        shards: what each is about.
        output: the JSONL to write; it appears when everything is done.
        job: what the records depend on; parts of an earlier run are used only when theirs is equal.
        workers: processes; with 1 the work is done in this one.
        restart: throw the parts of an earlier run away.

    Returns:
        The tally and the quarantine of all shards, with no records: those are in the file.

    Raises:
        ValueError: when there are parts of another job.
    """
    parts = output.with_name(f"{output.name}.parts")
    if restart and parts.is_dir():
        shutil.rmtree(parts)
    parts.mkdir(parents=True, exist_ok=True)
    _same_job(parts / "job.json", job)
    missing = [number for number in range(len(shards)) if not _files(parts, number)[0].is_file()]
    if len(missing) < len(shards):
        LOG.warning("%s: %d of %d shards are there from an earlier run; going on with the rest.", output, len(shards) - len(missing), len(shards))
    for done, _ in enumerate(_work_off(partial(_do, work, parts), [(number, shards[number]) for number in missing], workers), start=1):
        LOG.info("%d of %d shards", len(shards) - len(missing) + done, len(shards))
    return _join(parts, len(shards), output)


def _work_off(task: Callable[[tuple[int, Any]], int], shards: Sequence[tuple[int, Any]], workers: int) -> Iterable[int]:
    if workers == 1 or len(shards) < 2:
        yield from map(task, shards)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(shards)), mp_context=context, initializer=_begin) as pool:
        for future in as_completed([pool.submit(task, shard) for shard in shards]):
            yield future.result()


def _begin() -> None:
    """A worker uses one thread, and ends when its parent is gone, however that ended."""
    cv2.setNumThreads(1)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _do(work: Work, parts: Path, shard: tuple[int, Any]) -> int:
    number, what = shard
    made = work(what)
    records, report = _files(parts, number)
    _write(report, json.dumps({"tally": dict(sorted(made.tally.items())), "quarantine": made.quarantine}, ensure_ascii=False))
    _write(records, "".join(line_of(record) + "\n" for record in made.records))  # last: it says that the shard is done
    return number


def _files(parts: Path, number: int) -> tuple[Path, Path]:
    return parts / f"{number:06d}.jsonl", parts / f"{number:06d}.json"


def _write(path: Path, text: str) -> None:
    """A file as a whole or not at all."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_text(text, encoding="utf-8", newline="\n")
    part.replace(path)


def _same_job(path: Path, job: dict[str, Any]) -> None:
    text = json.dumps(job, sort_keys=True, indent=1, ensure_ascii=False)
    if not path.is_file():
        _write(path, text)
        return
    other = json.loads(path.read_text(encoding="utf-8"))
    wanted = json.loads(text)
    if other != wanted:
        names = sorted(name for name in {*other, *wanted} if other.get(name) != wanted.get(name))
        found = ", ".join(f"{name} {other.get(name)!r} (now {wanted.get(name)!r})" for name in names)
        raise ValueError(
            f"{path.parent} holds parts of another job: {found}. Give the earlier options to go on with it, --restart to begin anew, or another output."
        )


def _join(parts: Path, count: int, output: Path) -> Made:
    made = Made()
    joined = output.with_name(f"{output.name}.{os.getpid()}.part")
    with joined.open("wb") as file:
        for number in range(count):
            records, report = _files(parts, number)
            with records.open("rb") as shard:
                shutil.copyfileobj(shard, file)
            told = json.loads(report.read_text(encoding="utf-8"))
            made.tally.update(told["tally"])
            made.quarantine += told["quarantine"]
    joined.replace(output)
    return made


def clear(output: Path) -> None:
    """Removes the parts of a finished job."""
    shutil.rmtree(output.with_name(f"{output.name}.parts"))
