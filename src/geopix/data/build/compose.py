"""One record in, one record out: measured, selected, described, proved."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from geopix.data.build.answers import answering
from geopix.data.build.captions import captions
from geopix.data.build.colours import words_of
from geopix.data.build.measure import Limits, Picture, Thing, measure
from geopix.data.build.propose import Finder, Together
from geopix.data.build.referring import following, grouped, missing, pointing
from geopix.data.build.rewrite import Rewriting
from geopix.data.build.speaker import Said, Speaker
from geopix.data.build.view import View
from geopix.data.images import Scaling
from geopix.data.records import Record

FAMILIES = ("segment", "refer", "caption", "vqa")
ROWS, COLUMNS = ("top", "middle", "bottom"), ("left", "centre", "right")


@dataclass(frozen=True)
class Choices:
    """What is made of each image.

    Args:
        seed: of the whole set; each image has its own chance from it and its key.
        targets: things that are described at most.
        phrasings: expressions of each, of different types.
        groups: group dialogues at most.
        absent: questions for what is not there at most.
        families: kinds of dialogues that are kept.
        limits: which instances may be asked for alone.
        bands: the bands that are red, green and blue.
        low, high: the stored values that mean 0 and 1, for other types than 8 bit.
        keep: keep the dialogues that the input has.
    """

    seed: int = 0
    targets: int = 5
    phrasings: int = 2
    groups: int = 2
    absent: int = 2
    families: tuple[str, ...] = FAMILIES
    limits: Limits = field(default_factory=Limits)
    bands: tuple[int, ...] | None = None
    low: float = 0.0
    high: float | None = None
    keep: bool = False


def compose(
    record: Record, locate: Callable[[str], Path], choices: Choices, together: Together, rewriting: Rewriting | None, tally: Counter[str]
) -> Record | None:
    """The record with dialogues, their provenance and what was measured; None where nothing can be said, which is counted.

    Args:
        record: one line of the JSONL format.
        locate: from a path in the record to a file.
        choices: what is made of it.
        together: the classes of the set and how often they stand beside each other.
        rewriting: where phrases are reworded.
        tally: takes counts of everything that happened.

    Raises:
        FileNotFoundError, ValueError: when the image or a mask is not what it should be.
    """
    picture = measure(record, locate, choices.limits, bands=choices.bands, scale=Scaling(choices.low, choices.high))
    view = View(picture)
    for thing in picture.things:
        tally["instances"] += 1
        tally[f"rejected: {thing.reject}" if thing.reject else "targets"] += 1
        tally[f"class: {thing.name}"] += 1
        tally[f"colour: {thing.colour.word or 'unsure'}"] += 1
        if not thing.reject:
            tally[f"position: {' '.join(_third(value, names) for value, names in ((thing.y, ROWS), (thing.x, COLUMNS)))}"] += 1
            side = 2 ** int(math.log2(math.sqrt(thing.area)))
            tally[f"side: {side} to {2 * side}"] += 1
    speaker = Speaker(Finder(view, _chance(choices.seed, picture.key), together), str(locate(record["image"])), rewriting, tally)
    said: list[Said] = [*pointing(speaker, choices.targets, choices.phrasings), *grouped(speaker, choices.groups), *missing(speaker, choices.absent)]
    said += [*following(speaker), *captions(speaker), *answering(speaker)]
    kept = [one for one in said if one.task.split("/")[0] in choices.families]
    for one in kept:
        tally[f"task: {one.task}"] += 1
        tally[f"rule: {one.rule}"] += 1
        tally["turns"] += len(one.turns)
        for turn in one.turns:
            tally[f"words: {5 * (len(turn.prompt.split()) // 5)} to {5 * (len(turn.prompt.split()) // 5) + 4}"] += 1
            if turn.answer in ("yes", "no"):
                tally[f"answer: {turn.answer}"] += 1
    old = record.get("dialogues", [])
    tally["dialogues of the input, kept" if choices.keep else "dialogues of the input, left out"] += len(old)
    if not kept and not (choices.keep and old):
        tally["records left out: nothing can be said"] += 1
        return None
    tally["records"] += 1
    asked = _asked_alone(old) if choices.keep else set()
    instances = [_marked(entry, thing, asked) for entry, thing in zip(record.get("instances", []), picture.things, strict=True)]
    rest = {name: value for name, value in record.items() if name not in ("instances", "dialogues", "measured")}
    dialogues = (old if choices.keep else []) + [one.record(view) for one in kept]
    return rest | {"instances": instances, "dialogues": dialogues, "measured": _measured(picture)}


def _third(value: float, names: tuple[str, str, str]) -> str:
    return names[min(int(3 * value), 2)]


def _chance(seed: int, key: str) -> np.random.Generator:
    """A record's own source of chance, whatever stands before it in the file."""
    return np.random.default_rng([seed, *hashlib.sha256(key.encode("utf-8")).digest()])


def _marked(entry: dict[str, Any], thing: Thing, asked: Collection[int | str]) -> dict[str, Any]:
    """An instance of the format; what is rejected is a distractor from now on, unless dialogues that are kept ask for it."""
    return entry | ({"distractor_only": True} if thing.reject and thing.id not in asked else {})


def _asked_alone(dialogues: list[dict[str, Any]]) -> set[int | str]:
    """Instances that are the one target of a ``[SEG]`` outside a group."""
    single = [entry for entry in dialogues if not str(entry.get("task")).endswith("/group")]
    return {ids[0] for entry in single for ids in entry.get("targets", []) if len(ids) == 1}


def _measured(picture: Picture) -> dict[str, Any]:
    """What was measured of the image and of each instance, in the order of the instances."""
    things = [
        {
            "id": thing.id, "colour": thing.colour.word, "colour_share": thing.colour.share, "colours_possible": words_of(thing.colour.possible),
            "centre": [round(thing.x, 4), round(thing.y, 4)], "area": thing.area, "length": round(thing.length, 1), "width": round(thing.width, 1),
            "angle": None if thing.angle is None else round(thing.angle, 1), "whole": thing.whole, "rejected": thing.reject or None,
        }
        for thing in picture.things
    ]  # fmt: skip
    return {"size": [picture.height, picture.width], "gsd": picture.gsd, "things": things}
