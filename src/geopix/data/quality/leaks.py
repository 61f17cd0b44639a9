"""Finding images that are the same or nearly so, above all where they stand in different splits."""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Int64, UInt64

from geopix.data.index import key_number
from geopix.data.quality import report
from geopix.data.quality.pictures import Look

CLOSE, NEAR = 4, 8
"""Bits by which one of phash and dhash, and the other, may differ. A photograph that is saved anew, made smaller or brighter stays within 4 of both."""

BANDS = ((0, 13), (13, 13), (26, 13), (39, 13), (52, 12))
"""Parts of 64 bits, one more than may differ: of two numbers that are close enough, one part is always equal."""

WHOLE = (0, 0, 2**31, 2**31)
"""The window of a record about all of a file."""

Window = tuple[int, int, int, int]
Pairs = Iterator[tuple[int, int]]


@dataclass
class Sightings:
    """Images as leaks are looked for: some 60 bytes each, for there may be millions. Texts and digests are numbers of 64 bits.

    Args:
        files: position of its JSONL among those that are checked.
        lines: of its record.
        splits: position in ``split_names``.
        images: its file.
        digests: see :class:`geopix.data.quality.pictures.Look`.
        perceptual, gradient: the same; 0 where it has none, which ``plain`` says.
        windows: by position, of records about a part of a file.
    """

    split_names: dict[str, int] = field(default_factory=dict)
    files: array[int] = field(default_factory=lambda: array("H"))
    lines: array[int] = field(default_factory=lambda: array("I"))
    splits: array[int] = field(default_factory=lambda: array("H"))
    images: array[int] = field(default_factory=lambda: array("Q"))
    digests: array[int] = field(default_factory=lambda: array("Q"))
    perceptual: array[int] = field(default_factory=lambda: array("Q"))
    gradient: array[int] = field(default_factory=lambda: array("Q"))
    plain: array[int] = field(default_factory=lambda: array("B"))
    windows: dict[int, Window] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.lines)

    def add(self, file: int, line: int, split: str, image: str, window: Window | None, look: Look) -> None:
        """One more image."""
        if window is not None:
            self.windows[len(self)] = window
        self.files.append(file)
        self.lines.append(line)
        self.splits.append(self.split_names.setdefault(split, len(self.split_names)))
        self.images.append(key_number(image))
        self.digests.append(int.from_bytes(look.digest[:8], "little"))
        self.perceptual.append(look.perceptual or 0)
        self.gradient.append(look.gradient or 0)
        self.plain.append(look.perceptual is None or look.gradient is None)

    def split(self, place: int) -> str:
        """The name of an image's split."""
        return list(self.split_names)[self.splits[place]]


def leaks(seen: Sightings) -> Iterator[tuple[str, int, int]]:
    """Images that two splits share, each told once, by the strongest reason, at the record that training should give up.

    Gives:
        The kind of leak, that record, and the other one, as positions.
    """
    told: set[int] = set()
    for kind, pairs in _kinds(seen):
        for pair in pairs:
            first, second = sorted(pair)
            if seen.splits[first] == seen.splits[second]:
                continue
            # the record of the training split gives way, so that a test set stays whole; else the later one
            one, other = (first, second) if seen.split(first).startswith("train") else (second, first)
            if one not in told:
                told.add(one)
                yield kind, one, other


def _kinds(seen: Sightings) -> Iterator[tuple[str, Pairs]]:
    if len(seen.split_names) > 1:
        yield report.LEAK_PATH, _same_file(seen)
        yield report.LEAK_BYTES, _across_splits(seen, seen.digests)
        known = np.flatnonzero(np.frombuffer(seen.plain, dtype=np.uint8) == 0)
        hashes = (np.frombuffer(values, dtype=np.uint64)[known] for values in (seen.perceptual, seen.gradient))
        yield report.LEAK_NEAR, ((int(known[one]), int(known[other])) for one, other in near_pairs(*hashes))


def same_pairs(values: Sequence[object]) -> Pairs:
    """The first of equal values with each of the others; None equals nothing."""
    first: dict[object, int] = {}
    for place, value in enumerate(values):
        if value is not None and first.setdefault(value, place) != place:
            yield first[value], place


def equal_groups(numbers: array[int]) -> list[Int64[np.ndarray, " places"]]:
    """Positions of equal numbers of 64 bits, ascending; groups of two and more, by their first."""
    values = np.frombuffer(numbers, dtype=np.uint64)
    order = np.argsort(values, kind="stable")
    ends = np.flatnonzero(np.diff(values[order])) + 1
    starts, ends = np.concatenate([[0], ends]), np.concatenate([ends, [len(order)]])
    several = np.flatnonzero(ends - starts > 1)
    return sorted((order[starts[one] : ends[one]] for one in several.tolist()), key=lambda group: int(group[0]))


def near_pairs(perceptual: UInt64[np.ndarray, " n"], gradient: UInt64[np.ndarray, " n"]) -> Pairs:
    """Pairs of images whose hashes differ by few bits; a pair may come more than once."""
    for by, beside in ((perceptual, gradient), (gradient, perceptual)):
        for start, width in BANDS:
            band = (by >> np.uint64(start)) & np.uint64(2**width - 1)
            order = np.argsort(band, kind="stable")
            for members in np.split(order, np.flatnonzero(np.diff(band[order])) + 1):
                for place in range(len(members) - 1):
                    one, rest = members[place], members[place + 1 :]
                    alike = (np.bitwise_count(by[rest] ^ by[one]) <= CLOSE) & (np.bitwise_count(beside[rest] ^ beside[one]) <= NEAR)
                    yield from ((int(one), int(other)) for other in rest[alike])


def _across_splits(seen: Sightings, numbers: array[int]) -> Pairs:
    """Equal numbers, each with the first one of every other split."""
    for group in equal_groups(numbers):
        first: dict[int, int] = {}
        for place in group.tolist():
            yield from ((other, place) for split, other in first.items() if split != seen.splits[place])
            first.setdefault(seen.splits[place], place)


def _same_file(seen: Sightings) -> Pairs:
    """Records of one file in different splits whose windows share a pixel, each with the first such record."""
    for group in equal_groups(seen.images):
        members: dict[tuple[int, Window], list[int]] = defaultdict(list)
        for place in group.tolist():
            members[seen.splits[place], seen.windows.get(place, WHOLE)].append(place)
        splits = np.array([split for split, _ in members])
        left, top, across, down = np.array([window for _, window in members], dtype=np.int64).T
        places = list(members.values())
        for one in range(len(places) if len(set(splits.tolist())) > 1 else 0):
            beside = (left < left[one] + across[one]) & (left[one] < left + across) & (top < top[one] + down[one]) & (top[one] < top + down)
            for other in np.flatnonzero(beside & (splits > splits[one])).tolist():
                yield from ((places[one][0], place) for place in places[other])
                yield from ((place, places[other][0]) for place in places[one][1:])
