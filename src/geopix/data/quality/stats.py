"""What a file of records holds, in numbers: classes, sizes, places, words, tasks."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from geopix.data.index import DEFAULT_TASK
from geopix.data.quality.check import decode, masks_of, tight_box
from geopix.data.quality.lines import each_line
from geopix.data.quality.pictures import own_size
from geopix.data.records import Record
from geopix.data.schema import fault

COLOURS = frozenset(
    [
        "white",
        "black",
        "grey",
        "gray",
        "silver",
        "red",
        "pink",
        "orange",
        "brown",
        "tan",
        "beige",
        "yellow",
        "green",
        "teal",
        "cyan",
        "turquoise",
        "blue",
        "purple",
        "dark",
        "bright",
    ]
)
PLACES = frozenset(["left", "right", "top", "bottom", "upper", "lower", "middle", "center", "centre", "north", "south", "east", "west", "corner", "edge"])
UNKNOWN = "(no class)"
ROWS, COLUMNS = ("top", "middle", "bottom"), ("left", "middle", "right")


@dataclass
class Measured:
    """The numbers of one line.

    Args:
        trouble: why it could not be measured; "" where it was.
        split: its split; None where it has none.
        size: rows and columns of its image.
        gsd: metres per pixel; None where unknown.
        instances: class, area in pixels, and place (0..8, row by row) of each instance with a mask.
        unmeasured: instances without a mask that can be read.
        tasks: of its dialogues.
        prompts, answers: numbers of words of each turn.
        words: how often colours and places are said.
    """

    trouble: str = ""
    split: str | None = None
    size: tuple[int, int] = (0, 0)
    gsd: float | None = None
    instances: list[tuple[str, int, int]] = field(default_factory=list)
    unmeasured: int = 0
    tasks: list[str] = field(default_factory=list)
    prompts: list[int] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    words: Counter[str] = field(default_factory=Counter)


@dataclass
class Statistics:
    """The numbers of a file.

    Args:
        records: that were measured.
        troubles: lines that were not, with the reason.
        unmeasured: instances without a mask that can be read.
        classes, splits, tasks, sizes, places, colours, place_words: how often each occurs; sizes are "rows x columns".
        areas: of each instance in pixels, by class.
        sides: square root of the area in metres, where the ground sampling distance is known.
        per_image: instances of each image.
        prompts, answers: numbers of words.
    """

    records: int = 0
    troubles: list[str] = field(default_factory=list)
    unmeasured: int = 0
    classes: Counter[str] = field(default_factory=Counter)
    splits: Counter[str] = field(default_factory=Counter)
    tasks: Counter[str] = field(default_factory=Counter)
    sizes: Counter[str] = field(default_factory=Counter)
    places: Counter[str] = field(default_factory=Counter)
    colours: Counter[str] = field(default_factory=Counter)
    place_words: Counter[str] = field(default_factory=Counter)
    areas: dict[str, list[int]] = field(default_factory=dict)
    sides: list[float] = field(default_factory=list)
    per_image: list[int] = field(default_factory=list)
    prompts: list[int] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)

    def all_areas(self) -> list[int]:
        """Areas of the instances of all classes."""
        return [area for areas in self.areas.values() for area in areas]

    def as_json(self) -> dict[str, Any]:
        """Counts and percentiles, for programs."""
        counted = {
            "classes": self.classes, "splits": self.splits, "tasks": self.tasks, "image sizes": self.sizes,
            "places": self.places, "colour words": self.colours, "place words": self.place_words,
        }  # fmt: skip
        spread: dict[str, Sequence[float | int]] = {
            "area in pixels": self.all_areas(), "side in metres": self.sides, "instances per image": self.per_image,
            "words per prompt": self.prompts, "words per answer": self.answers,
        }  # fmt: skip
        return {
            "records": self.records,
            "lines not measured": len(self.troubles),
            "instances not measured": self.unmeasured,
            **{name: dict(counts.most_common()) for name, counts in counted.items()},
            **{name: percentiles(values) for name, values in spread.items()},
        }


def measure_file(path: Path, *, limit: int | None = None, workers: int | None = None) -> Statistics:
    """Reads every line and the headers of the images, not their pixels; what cannot be measured is counted.

    Raises:
        FileNotFoundError, ValueError: when there is no such file, or it is no JSONL.
    """
    return add_up(each_line(path, partial(measure_line, root=path.parent), limit=limit, workers=workers))


def measure_line(raw: bytes, line: int, root: Path) -> Measured:
    """The numbers of one line; a reason in ``trouble`` where there are none."""
    try:
        record = json.loads(decode(raw)[0])
        if wrong := fault(record):
            return Measured(f"line {line}: {wrong}")
        height, width = own_size(record, root)
        found = Measured(split=record.get("split"), size=(height, width), gsd=record.get("gsd"))
        _measure_instances(record, root, found)
    except (ValueError, FileNotFoundError) as error:
        return Measured(f"line {line}: {error}")
    for entry in record.get("dialogues", []):
        found.tasks.append(entry.get("task", DEFAULT_TASK))
        for turn in entry["turns"]:
            said = [re.findall(r"[\w-]+", turn.get(name, "").lower()) for name in ("prompt", "answer")]
            found.prompts.append(len(said[0]))
            found.answers.append(len(said[1]))
            found.words.update(word for word in said[0] + said[1] if word in COLOURS or word in PLACES)
    return found


def add_up(lines: Iterable[Measured]) -> Statistics:
    """The numbers of all lines together."""
    total = Statistics()
    for found in lines:
        if found.trouble:
            total.troubles.append(found.trouble)
            continue
        total.records += 1
        total.unmeasured += found.unmeasured
        total.splits.update([found.split] if found.split is not None else [])
        total.sizes[f"{found.size[0]} x {found.size[1]}"] += 1
        total.tasks.update(found.tasks)
        total.prompts += found.prompts
        total.answers += found.answers
        total.per_image.append(len(found.instances) + found.unmeasured)
        total.colours.update({word: count for word, count in found.words.items() if word in COLOURS})
        total.place_words.update({word: count for word, count in found.words.items() if word in PLACES})
        for name, area, place in found.instances:
            total.classes[name] += 1
            total.areas.setdefault(name, []).append(area)
            total.places[f"{ROWS[place // 3]} {COLUMNS[place % 3]}"] += 1
            if found.gsd is not None:
                total.sides.append(area**0.5 * found.gsd)
    return total


def percentiles(values: Sequence[float | int]) -> dict[str, float | int]:
    """Number, least, 5 %, median, mean, 95 % and greatest; the number alone where it is 0."""
    if not values:
        return {"count": 0}
    least, low, median, high, greatest = np.percentile(values, [0, 5, 50, 95, 100]).round(2).tolist()
    return {"count": len(values), "min": least, "5 %": low, "median": median, "mean": round(float(np.mean(values)), 2), "95 %": high, "max": greatest}


def table(statistics: Statistics, rows: int = 20) -> str:
    """The numbers for the terminal."""
    lines = [f"{statistics.records} records, {sum(statistics.classes.values())} instances, {sum(statistics.tasks.values())} dialogues"]
    if statistics.troubles or statistics.unmeasured:
        lines.append(f"not measured: {len(statistics.troubles)} lines, {statistics.unmeasured} instances; geopix data check says why")
    lines += ["", f"{'class':<28}{'instances':>10}{'share':>8}{'median area':>13}{'95 % area':>11}"]
    total = sum(statistics.classes.values())
    for name, count in statistics.classes.most_common(rows):
        median, high = np.percentile(statistics.areas[name], [50, 95])
        lines.append(f"{name[:27]:<28}{count:>10}{count / total:>8.1%}{median:>13.0f}{high:>11.0f}")
    lines += [f"... and {len(statistics.classes) - rows} classes more"] if len(statistics.classes) > rows else []
    for name, value in statistics.as_json().items():
        if isinstance(value, dict) and value and name != "classes":
            said = ", ".join(f"{key} {number:g}" for key, number in list(value.items())[:rows])
            lines.append(f"{name + ':':<28}{said}{', ...' if len(value) > rows else ''}")
    return "\n".join(lines)


def _measure_instances(record: Record, root: Path, found: Measured) -> None:
    height, width = found.size
    reader = masks_of(record, root, height, width)
    for entry in record.get("instances", []):
        try:
            mask: np.ndarray = reader.mask(entry["id"]).numpy()
        except (ValueError, TypeError, FileNotFoundError):
            found.unmeasured += 1
            continue
        if not (area := int(mask.sum())):
            found.unmeasured += 1
            continue
        x1, y1, x2, y2 = tight_box(mask)
        place = min(3 * (y1 + y2) // (2 * height), 2) * 3 + min(3 * (x1 + x2) // (2 * width), 2)
        found.instances.append((entry.get("class") or UNKNOWN, area, place))
