"""Going through the lines of a JSONL in order, in several processes where it is long."""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import TypeVar

from geopix.data.images import describe

Result = TypeVar("Result")
Line = tuple[bytes, int]
"""A line's bytes and its number, from 1."""

CHUNK = 32
"""Lines that a process is given at once."""

ALONE = 256
"""Lines up to which one process is faster than starting several."""


def read_lines(path: Path, limit: int | None = None) -> Iterator[Line]:
    """The lines that are not empty.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it is something else than lines of text, such as a zip archive or an HTML page.
    """
    if not path.is_file():
        raise FileNotFoundError(f"the records {path} do not exist. Expected a JSONL file, one record per line (docs/data.md).")
    with path.open("rb") as file:
        head = file.readline(4096)
        if head.startswith((b"version https://git-lfs", b"<", b"PK\x03\x04")) or b"\0" in head:
            raise ValueError(f"{path} is no JSONL: {describe(path)}.")
        file.seek(0)
        yield from islice(((raw, number) for number, raw in enumerate(file, start=1) if not raw.isspace()), limit)


def each_line(path: Path, of: Callable[[bytes, int], Result], *, limit: int | None = None, workers: int | None = None) -> Iterator[Result]:
    """What a function gives for each line, in the order of the file; few lines are held at once.

    Args:
        path: the JSONL.
        of: takes a line's bytes and its number; a module's function or a partial of one, since processes are sent it.
        limit: how many lines; None for all.
        workers: processes; as many as there are cores unless given, and none beside this one for a short file.
    """
    lines = read_lines(path, limit)
    head = list(islice(lines, ALONE))
    count = (os.cpu_count() or 1) if workers is None else workers
    if count <= 1 or len(head) < ALONE:
        yield from (of(raw, number) for raw, number in chain(head, lines))
        return
    both = chain(head, lines)
    chunks = iter(lambda: list(islice(both, CHUNK)), [])
    waiting: deque[Future[list[Result]]] = deque()
    # a process that is forked off one whose libraries run threads may stop for ever
    with ProcessPoolExecutor(count, multiprocessing.get_context("spawn")) as pool:
        for chunk in chunks:
            waiting.append(pool.submit(partial(_each, of), chunk))
            if len(waiting) > 3 * count:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()


def _each(of: Callable[[bytes, int], Result], chunk: list[Line]) -> list[Result]:
    return [of(raw, number) for raw, number in chunk]
