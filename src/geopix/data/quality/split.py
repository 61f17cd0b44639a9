"""Dividing records into splits so that no image, near copy or place is in two of them."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import shapely
from rasterio.errors import CRSError
from rasterio.warp import transform
from shapely import Polygon, STRtree

from geopix.data.quality.check import decode
from geopix.data.quality.fix import moved
from geopix.data.quality.leaks import near_pairs, same_pairs
from geopix.data.quality.lines import each_line, read_lines
from geopix.data.quality.pictures import look_at
from geopix.data.records import Record, write_records
from geopix.data.schema import fault
from geopix.types import Georeference

By = Literal["image", "place", "class"]
Corners = tuple[tuple[float, float], ...]

SCENE = r"^(.+?)(?:[_-]+(?:[rcxy]|row|col|tile)?\d+){2,}$"
"""Names of tiles cut from one scene, such as P0001__1024__0___824: what comes before two or more numbers names the scene."""

METRES = 111_320.0
"""Of one degree of latitude."""

OVERLAP = 0.01
"""Share of the smaller of two images from which they count as overlapping; neighbours share an edge."""

SHOWN = 20


@dataclass(frozen=True)
class Part:
    """What decides to which split a record can go.

    Args:
        line: its line.
        trouble: why it cannot be divided; "" where it can.
        stem: name of its image without ending.
        identities: its image's path, bytes, phash and dhash.
        classes: of its instances, each once.
        corners: of its image, in metres on a sphere cut open; None where it has no place.
        window: the part of the file that is its image; None where that is all of it.
    """

    line: int
    trouble: str = ""
    stem: str = ""
    identities: tuple[str, bytes, int | None, int | None] = ("", b"", None, None)
    classes: tuple[str, ...] = ()
    corners: Corners | None = None
    window: tuple[int, ...] | None = None


def split_records(
    path: Path,
    shares: Mapping[str, float | int],
    *,
    by: By = "image",
    seed: int = 0,
    cell: float | int = 1000.0,
    scene: str = SCENE,
    workers: int | None = None,
) -> list[str]:
    """The split of each record, in the order of the file; the same file, shares and seed give the same.

    Records of one image, or of images that are nearly the same, always go together; with ``place`` also those whose images lie in one cell of a grid
    or overlap, and, where images have no place on the earth, those whose names say that they are tiles of one scene. Groups go, in an order drawn by the
    seed (with ``class``: those with rare classes first), to the split that lacks most.

    Args:
        path: the JSONL.
        shares: how much of the records each split should get.
        by: image, place or class.
        seed: of the order.
        cell: side of the grid's cells in metres.
        scene: regular expression whose first group is the name of a tile's scene.

    Raises:
        ValueError: for shares that are none, for records whose image cannot be read, and where there are fewer groups than splits.
    """
    if not shares or min(shares.values()) <= 0:
        raise ValueError(f"shares of splits are numbers above 0; found {dict(shares)}.")
    parts = list(each_line(path, partial(part_of, root=path.parent), workers=workers))
    if troubles := [part.trouble for part in parts if part.trouble]:
        more = f"\n  ... and {len(troubles) - SHOWN} more" if len(troubles) > SHOWN else ""
        raise ValueError(
            f"{path}: {len(troubles)} record(s) cannot be divided; geopix data check --fix sets them aside\n  " + "\n  ".join(troubles[:SHOWN]) + more
        )
    groups = _groups(parts, by, cell, scene)
    if len(groups) < len(shares):
        raise ValueError(
            f"{path}: {len(parts)} records by {by} are {len(groups)} group(s) that must stay together, fewer than the {len(shares)} splits. "
            + (
                "Give a smaller --cell, or --scene, a pattern whose first group names a tile's scene."
                if by == "place"
                else "Add images or ask for fewer splits; windows of one georeferenced file are divided --by place."
            )
        )
    return _assigned(parts, groups, shares, by, seed)


def part_of(raw: bytes, line: int, root: Path) -> Part:
    """Reads a line and its image."""
    try:
        record = json.loads(decode(raw)[0])
        if wrong := fault(record):
            return Part(line, f"line {line}: {wrong}")
        path = root / record["image"]
        look = look_at(path, record.get("window"))
    except (ValueError, FileNotFoundError) as error:
        return Part(line, f"line {line}: {error}")
    classes = tuple(sorted({entry["class"] for entry in record.get("instances", []) if entry.get("class")}))
    place: Georeference | None = record.get("georeference") or look.georeference
    try:
        corners = None if place is None else _corners(place, look.height, look.width)
    except CRSError as error:
        return Part(line, f"line {line}: the CRS of its georeference is none ({error}).")
    window = None if record.get("window") is None else tuple(record["window"])
    return Part(line, "", path.stem, (str(path.resolve()), look.digest, look.perceptual, look.gradient), classes, corners, window)


def write_split(path: Path, names: Sequence[str], out: Path) -> dict[str, Counter[str]]:
    """Writes the records anew, each with its split.

    Returns:
        For each split its records (under "") and its instances of each class.
    """
    counts: dict[str, Counter[str]] = defaultdict(Counter)

    def divided() -> Iterator[Record]:
        for (raw, _), name in zip(read_lines(path), names, strict=True):
            record = json.loads(decode(raw)[0])
            counts[name][""] += 1
            counts[name].update(str(entry.get("class")) for entry in record.get("instances", []))
            yield moved(record | {"split": name}, path.parent, out.parent)

    write_records(out, divided())
    return dict(counts)


def _groups(parts: Sequence[Part], by: By, cell: float | int, scene: str) -> list[list[int]]:
    """Positions of the records that must stay together."""
    group = list(range(len(parts)))

    def root(one: int) -> int:
        while group[one] != one:
            group[one] = group[group[one]]
            one = group[one]
        return one

    for first, second in _together(parts, by, cell, scene):
        low, high = sorted((root(first), root(second)))
        group[high] = low
    members: dict[int, list[int]] = defaultdict(list)
    for place in range(len(parts)):
        members[root(place)].append(place)
    return list(members.values())


def _together(parts: Sequence[Part], by: By, cell: float | int, scene: str) -> Iterator[tuple[int, int]]:
    paths, digests, perceptual, gradient = zip(*(part.identities for part in parts), strict=True)
    apart = [by == "place" and part.window is not None and part.corners is not None for part in parts]  # windows of one file, which lie somewhere each
    yield from same_pairs([(path, part.window if own else None) for path, part, own in zip(paths, parts, apart, strict=True)])
    yield from same_pairs(digests)
    known = [place for place, (one, other) in enumerate(zip(perceptual, gradient, strict=True)) if one is not None and other is not None]
    hashes = (np.array([values[place] for place in known], dtype=np.uint64) for values in (perceptual, gradient))
    yield from ((known[one], known[other]) for one, other in near_pairs(*hashes))
    if by != "place":
        return
    placed = [place for place, part in enumerate(parts) if part.corners is not None]
    yield from same_pairs([None if part.corners is None else _cell(part.corners, cell) for part in parts])
    shapes = np.array([Polygon(part.corners) for part in parts if part.corners is not None], dtype=object)
    if len(shapes):
        first, second = STRtree(shapes).query(shapes, predicate="intersects")
        common = shapely.area(shapely.intersection(shapes[first], shapes[second]))
        much = (first < second) & (common > OVERLAP * np.minimum(shapely.area(shapes[first]), shapely.area(shapes[second])))
        yield from ((placed[one], placed[other]) for one, other in zip(first[much].tolist(), second[much].tolist(), strict=True))
    named = [re.match(scene, part.stem) if part.corners is None else None for part in parts]
    yield from same_pairs([None if name is None else name[1] for name in named])


def _assigned(parts: Sequence[Part], groups: Sequence[list[int]], shares: Mapping[str, float | int], by: By, seed: int) -> list[str]:
    """Greedily, each group to the split that lacks most of what the group brings."""
    drawn = sorted(groups, key=lambda group: hashlib.sha256(f"{seed} {parts[group[0]].identities[0].rsplit('/', 1)[-1]} {group[0]}".encode()).digest())
    brings = [Counter(name for place in group for name in parts[place].classes) for group in drawn]
    order = range(len(drawn))
    total: Counter[str] = sum(brings, Counter())
    if by == "class":
        order = sorted(order, key=lambda number: min((total[name] for name in brings[number]), default=len(parts) + 1))  # type: ignore[assignment]
    whole = sum(shares.values())
    given: dict[str, Counter[str]] = {name: Counter() for name in shares}
    names = [""] * len(parts)
    for number in order:
        rarest = min(brings[number], key=lambda name: (total[name], name), default=None) if by == "class" else None
        size = len(parts) if rarest is None else total[rarest]
        key = "" if rarest is None else f"class {rarest}"
        lack = {name: (share / whole * size - given[name][key], share / whole * len(parts) - given[name][""]) for name, share in shares.items()}
        chosen = max(shares, key=lambda name: lack[name])
        given[chosen][""] += len(drawn[number])
        given[chosen].update({f"class {name}": count for name, count in brings[number].items()})
        for place in drawn[number]:
            names[place] = chosen
    return names


def _corners(place: Georeference, height: int, width: int) -> Corners:
    """Where the corners of an image lie, in metres: latitude, and longitude at the scale of its degree of latitude, so that neighbours agree."""
    a, b, c, d, e, f = place["transform"]
    pixels = ((0, 0), (width, 0), (width, height), (0, height))
    xs, ys = zip(*((a * x + b * y + c, d * x + e * y + f) for x, y in pixels), strict=True)
    longitudes, latitudes = transform(place["crs"], "EPSG:4326", xs, ys)
    across = METRES * float(np.cos(np.radians(round(sum(latitudes) / 4))))
    return tuple((x * across, y * METRES) for x, y in zip(longitudes, latitudes, strict=True))


def _cell(corners: Corners, side: float | int) -> tuple[int, int]:
    east, north = (sum(values) / len(corners) for values in zip(*corners, strict=True))
    return int(east // side), int(north // side)
