"""Finding images that are the same or nearly so, above all where they stand in different splits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt64

from geopix.data.quality import report
from geopix.data.quality.report import Problem

CLOSE, NEAR = 4, 8
"""Bits by which one of phash and dhash, and the other, may differ. A photograph that is saved anew, made smaller or brighter stays within 4 of both."""

BANDS = ((0, 13), (13, 13), (26, 13), (39, 13), (52, 12))
"""Parts of 64 bits, one more than may differ: of two numbers that are close enough, one part is always equal."""


@dataclass(frozen=True)
class Seen:
    """An image as leaks are looked for.

    Args:
        file: position of its JSONL among those that are checked.
        line, key: of its record.
        split: by name.
        path: of the image, absolute.
        digest: of its bytes.
        perceptual, gradient: see :class:`geopix.data.quality.pictures.Look`.
    """

    file: int
    line: int
    key: str
    split: str
    path: str
    digest: bytes
    perceptual: int | None
    gradient: int | None


def leaks(seen: Sequence[Seen]) -> Iterator[tuple[int, Problem]]:
    """Images that two splits share, each told once, by the strongest reason, at the record that training should give up.

    Gives:
        The position of its file, and the problem.
    """
    told: set[int] = set()
    for kind, pairs in _kinds(seen):
        for first, second in pairs:
            if seen[first].split == seen[second].split:
                continue
            one, other = _loser_first(seen, first, second)
            if one not in told:
                told.add(one)
                what = f"{seen[one].path} ({seen[one].split}) and {seen[other].path} ({seen[other].split}, line {seen[other].line}, {seen[other].key})"
                yield seen[one].file, Problem(kind, seen[one].line, seen[one].key, f"{what}.")


def same_pairs(values: Sequence[object]) -> Iterator[tuple[int, int]]:
    """The first of equal values with each of the others; None equals nothing."""
    first: dict[object, int] = {}
    for place, value in enumerate(values):
        if value is not None and first.setdefault(value, place) != place:
            yield first[value], place


def near_pairs(perceptual: Sequence[int | None], gradient: Sequence[int | None]) -> Iterator[tuple[int, int]]:
    """Pairs of images whose hashes differ by few bits; a pair may come more than once."""
    known = np.array([place for place, bits in enumerate(perceptual) if bits is not None], dtype=np.int64)
    p, g = (_bits(values, known) for values in (perceptual, gradient))
    for by, beside in ((p, g), (g, p)):
        for start, width in BANDS:
            band = (by >> np.uint64(start)) & np.uint64(2**width - 1)
            order = np.argsort(band, kind="stable")
            for members in np.split(order, np.flatnonzero(np.diff(band[order])) + 1):
                for place in range(len(members) - 1):
                    one, rest = members[place], members[place + 1 :]
                    alike = (np.bitwise_count(by[rest] ^ by[one]) <= CLOSE) & (np.bitwise_count(beside[rest] ^ beside[one]) <= NEAR)
                    yield from ((int(known[one]), int(known[other])) for other in rest[alike])


def _kinds(seen: Sequence[Seen]) -> Iterator[tuple[str, Iterator[tuple[int, int]]]]:
    if len({image.split for image in seen}) > 1:
        yield report.LEAK_PATH, _across_splits(seen, [image.path for image in seen])
        yield report.LEAK_BYTES, _across_splits(seen, [image.digest for image in seen])
        yield report.LEAK_NEAR, near_pairs([image.perceptual for image in seen], [image.gradient for image in seen])


def _across_splits(seen: Sequence[Seen], values: Sequence[object]) -> Iterator[tuple[int, int]]:
    """Equal values, each with the first one of every other split."""
    first: dict[object, dict[str, int]] = {}
    for place, value in enumerate(values):
        holders = first.setdefault(value, {})
        yield from ((other, place) for split, other in holders.items() if split != seen[place].split)
        holders.setdefault(seen[place].split, place)


def _loser_first(seen: Sequence[Seen], first: int, second: int) -> tuple[int, int]:
    """The record of the training split first, so that a test set stays whole; else the later one."""
    return (first, second) if seen[first].split.startswith("train") else (second, first)


def _bits(values: Sequence[int | None], known: np.ndarray) -> UInt64[np.ndarray, " n"]:
    return np.array([values[place] or 0 for place in known.tolist()], dtype=np.uint64)
