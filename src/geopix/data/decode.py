"""From a record and its files to a sample: which dialogues are asked, what their masks are, and where all of it lies on the canvas."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from geopix.data.frame import letterbox, letterbox_masks
from geopix.data.georeference import place_of
from geopix.data.images import Scaling, read_image
from geopix.data.index import DEFAULT_TASK
from geopix.data.instances import InstanceMasks
from geopix.data.order import weight_for
from geopix.data.records import Record
from geopix.rle import encode_rle
from geopix.types import Dialogue, Sample


def sample_of(
    record: Record,
    locate: Callable[[str], Path],
    size: int,
    bands: Sequence[int] | None,
    scale: Scaling,
    with_truth: bool,
    keep: Sequence[int] | None = None,
) -> Sample:
    """A record as a sample; see :meth:`geopix.data.instruct.InstructRecords.sample`. Only masks of the dialogues that are kept are decoded.

    Args:
        locate: from a path in the record to a file.
    """
    values, georeference = read_image(locate(record["image"]), bands, scale, record.get("window"))
    georeference = place_of(record, georeference)
    image, frame = letterbox(torch.from_numpy(values), size)
    reader = InstanceMasks(record, locate, frame.height, frame.width)
    entries = record.get("dialogues", [])
    entries = entries if keep is None else [entries[number] for number in keep]
    dialogues, truth = [], []
    for entry in entries:
        turns, masks, classes = reader.dialogue(entry)
        said = entry.get("task", DEFAULT_TASK), tuple(entry.get("references", ()))
        dialogues.append(Dialogue(turns, letterbox_masks(masks, frame), classes, *said))
        truth.append(tuple(encode_rle(mask) for mask in masks) if with_truth else ())
    unions = None
    if with_truth and all(name is not None for dialogue in dialogues for name in dialogue.classes):
        unions = tuple(tuple(encode_rle(reader.class_union(ids)) for ids in entry.get("targets", [])) for entry in entries)
    return Sample(image, tuple(dialogues), key_of(record), frame, truth=tuple(truth) if with_truth else None, unions=unions, georeference=georeference)


def tasks_of(record: Record) -> tuple[str, ...]:
    """The task of each dialogue of a record."""
    return tuple(entry.get("task", DEFAULT_TASK) for entry in record.get("dialogues", []))


def choose_dialogues(tasks: Sequence[str], mix: Mapping[str, float] | None, count: int | None, seed: Sequence[int], where: str) -> list[int]:
    """Positions of the dialogues that a sample asks, ascending: at most ``count``, drawn by the weights that the mix gives their tasks.

    Raises:
        ValueError: when the mix leaves none.
    """
    weights = np.array([1.0 if mix is None else weight_for(mix, task) for task in tasks])
    allowed = int((weights > 0).sum())
    if not allowed:
        raise ValueError(f"the mix {dict(mix or {})} leaves none of the dialogues of {where}, whose tasks are {sorted(set(tasks))}.")
    drawn = np.random.default_rng(seed).choice(len(tasks), min(count or allowed, allowed), replace=False, p=weights / weights.sum())
    return sorted(drawn.tolist())


def draw_seed(seed: int, index: int, epoch: int) -> list[int]:
    """What an image's draw of dialogues starts from: its own in every epoch."""
    return [seed, index, epoch] if epoch else [seed, index]


def key_of(record: Record) -> str:
    """The name of a record: its key, or else its path."""
    return str(record.get("key", record["image"]))
