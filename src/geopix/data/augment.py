"""More views of a data set: flips, quarter turns and crops whose masks, boxes and words stay true.

Geometry is albumentations'. What an image shows after it decides what may still be said: a dialogue whose words cannot be followed, or could have become
false, is left out. Colour, blur and noise belong to the device (:mod:`geopix.data.appearance`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import albumentations as A
import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from geopix.data.directions import SIDES, Sides, redirect
from geopix.data.order import position
from geopix.data.source import Source
from geopix.types import Dialogue, Frame, Sample, Turn

TURNS = ("r90", "r180", "r270", "v", "hvt", "h", "t")
"""The seven other views of a square, as albumentations names them: turns, flips, and reflections in a diagonal."""

_BOX = re.compile(r"\{<(\d+)><(\d+)><(\d+)><(\d+)>(\|<-?\d+>)?\}")
_TRIES = 4

Move = Callable[[np.ndarray], np.ndarray]
"""What a transform does to the cells of an image or a mask."""

_NOT_IN_PARTS = re.compile(
    r"""\b(?:left|right|top|bottom|upper|lower|cent(?:re|er|ral)|middle|corners?|edges?|border|side|half|part|\w+most
    |north\w*|south\w*|east\w*|west\w*|above|below|under|over|near\w*|next|close\w*|beside|behind|between|among|along|around|opposite|adjacent|far\w*|front|inside|within
    |surround\w*|touch\w*|cross\w*|isolated|alone|only|first|second|third|fourth|last|small\w*|tin\w+|short\w*|other|another|more|fewer|less|many|few|several
    |\d+|two|three|four|five|six|seven|eight|nine|ten|it|its|one)\b""",
    re.VERBOSE | re.IGNORECASE,
)
"""Words whose truth may change when some things leave the image or are cut. A thing told apart by class, colour or as the largest remains told apart."""


@dataclass(frozen=True)
class Window:
    """A square part of a canvas, in its cells; ``scale`` is how much larger it is shown."""

    top: int
    left: int
    side: int
    canvas: int

    @property
    def scale(self) -> float:
        """Cells after the crop for one before."""
        return self.canvas / self.side


class Augmented(Source):
    """A data set seen from other sides; endless, for training.

    Turns keep every sentence whose words of direction can be followed (:func:`geopix.data.directions.redirect`). Crops keep dialogues about things that
    lie wholly inside and that are told apart by class, colour or as the largest, refusals of what was not there, and boxes; questions that count, compare
    or describe, and whatever names a place or a neighbour, are left out. A crop or turn that would leave nothing to say is not made.

    Args:
        source: what is seen; its images must be square, as letterboxed ones are.
        turn: share of the samples that are flipped or turned.
        crop: share of the samples that are cropped.
        side: smallest side of a crop, as a share of the image's.
        seed: of all draws.

    Raises:
        ValueError: for shares outside 0..1.
    """

    count = None

    def __init__(self, source: Source, turn: float = 0.875, crop: float = 0.25, side: float = 0.5, seed: int = 0) -> None:
        if wrong := {name: value for name, value in (("turn", turn), ("crop", crop), ("side", side)) if not 0 <= value <= 1}:
            raise ValueError(f"turn, crop and side of an augmented set are shares from 0 to 1; found {wrong}.")
        self.source, self.turn, self.crop, self.side, self.seed = source, turn, crop, side, seed

    @property
    def bands(self) -> int:  # type: ignore[override]
        """As the source has them."""
        return self.source.bands

    @property
    def title(self) -> str:  # type: ignore[override]
        """The source's title, and what is done to it."""
        return f"{self.source.title}, turned {self.turn:g}, cropped {self.crop:g} to {self.side:g}, seed {self.seed}"

    @property
    def kinds(self) -> frozenset[str]:  # type: ignore[override]
        """As the source has them."""
        return self.source.kinds

    def check(self) -> None:
        """Check the source."""
        self.source.check()

    def sample(self, index: int, mix: Mapping[str, float] | None = None, *, truth: bool = False, epoch: int = 0) -> Sample:
        """The sample of a number; every epoch sees each image in another way. Truth at the image's own size is not given.

        Raises:
            ValueError: when truth is asked for, which only a set for evaluation has.
        """
        if truth:
            raise ValueError("an augmented set is for training; evaluate on its source.")
        image, shown = position(self.source, index, mix, self.seed)
        sample = replace(self.source.sample(image, mix, epoch=shown), truth=None, unions=None)
        rng = np.random.default_rng([self.seed, index, 1])
        if rng.random() < self.crop:
            sample = self._cropped(sample, rng)
        if rng.random() < self.turn:
            other = turned(sample, TURNS[int(rng.integers(len(TURNS)))])
            sample = other if other.dialogues else sample
        return sample

    def _cropped(self, sample: Sample, rng: np.random.Generator) -> Sample:
        canvas = sample.image.shape[-1]
        for _ in range(_TRIES):
            side = int(rng.integers(max(1, round(self.side * canvas)), canvas + 1))
            found = cropped(sample, Window(int(rng.integers(canvas - side + 1)), int(rng.integers(canvas - side + 1)), side, canvas))
            if found.dialogues:
                return found
        return sample


def turned(sample: Sample, view: str) -> Sample:
    """A sample whose square image is flipped or turned; dialogues whose words cannot follow are left out.

    Args:
        view: one of :data:`TURNS`.
    """
    transform = A.D4(p=1)

    def move(cells: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(transform.apply(cells, group_element=view))

    sides = _sides(move)
    dialogues = [_turned_dialogue(dialogue, move, sides) for dialogue in sample.dialogues]
    image = torch.from_numpy(move(sample.image.permute(1, 2, 0).numpy())).permute(2, 0, 1)
    kept = tuple(dialogue for dialogue in dialogues if dialogue is not None)
    return replace(sample, image=image, dialogues=kept, frame=_turned_frame(sample.frame, sides), georeference=None)


def cropped(sample: Sample, window: Window) -> Sample:
    """A window of a sample's image, shown at the size of the whole; dialogues that could be false in it are left out."""
    size = window.canvas
    transform = A.Compose([A.Crop(window.left, window.top, window.left + window.side, window.top + window.side), A.Resize(size, size)])
    image = torch.from_numpy(transform(image=sample.image.permute(1, 2, 0).numpy())["image"]).permute(2, 0, 1)
    dialogues = [_cropped_dialogue(dialogue, window, sample.frame, transform) for dialogue in sample.dialogues]
    frame = Frame(size, size, 1.0, 0, 0, (size, size))
    return replace(sample, image=image, dialogues=tuple(dialogue for dialogue in dialogues if dialogue is not None), frame=frame, georeference=None)


def _sides(move: Move) -> Sides:
    """Where each side of an image goes, found by moving a picture of them."""
    marks = np.zeros((3, 3), dtype=np.uint8)
    places = {"top": (0, 1), "left": (1, 0), "right": (1, 2), "bottom": (2, 1)}
    for number, side in enumerate(SIDES, start=1):
        marks[places[side]] = number
    after = move(marks)
    return {SIDES[int(after[place]) - 1]: side for side, place in places.items()}


def _turned_dialogue(dialogue: Dialogue, move: Move, sides: Sides) -> Dialogue | None:
    turns = []
    for turn in dialogue.turns:
        said = [_turned_text(text, move, sides) for text in (turn.prompt, turn.answer)]
        if said[0] is None or said[1] is None:
            return None
        turns.append(Turn(said[0], said[1]))
    masks = dialogue.masks
    if masks is not None and len(masks):
        masks = torch.stack([torch.from_numpy(move(mask.numpy())) for mask in masks])
    return replace(dialogue, turns=tuple(turns), masks=masks, references=())


def _turned_text(text: str, move: Move, sides: Sides) -> str | None:
    if any(match[5] for match in _BOX.finditer(text)):  # what the angle of a turned box is measured from differs between data sets
        return None
    return redirect(_BOX.sub(lambda match: _turned_box([int(side) for side in match.groups()[:4]], sides), text), sides)


def _turned_box(box: list[int], sides: Sides) -> str:
    """A box in hundredths of the image's sides: each of its own sides goes where that side of the image goes."""
    inner = dict(zip(("left", "top", "right", "bottom"), (box[0], box[1], 100 - box[2], 100 - box[3]), strict=True))
    gone = {sides[side]: distance for side, distance in inner.items()}
    return f"{{<{gone['left']}><{gone['top']}><{100 - gone['right']}><{100 - gone['bottom']}>}}"


def _turned_frame(frame: Frame, sides: Sides) -> Frame:
    swapped = sides["left"] in ("top", "bottom")
    margins = {"left": frame.left, "top": frame.top}
    margins["right"] = frame.canvas[1] - margins["left"] - min(frame.canvas[1], round(frame.width * frame.scale))
    margins["bottom"] = frame.canvas[0] - margins["top"] - min(frame.canvas[0], round(frame.height * frame.scale))
    gone = {sides[side]: margin for side, margin in margins.items()}
    height, width = (frame.width, frame.height) if swapped else (frame.height, frame.width)
    return Frame(height, width, frame.scale, gone["top"], gone["left"], frame.canvas)


def _cropped_dialogue(dialogue: Dialogue, window: Window, frame: Frame, transform: A.Compose) -> Dialogue | None:
    family, _, kind = dialogue.task.partition("/")
    refused = family in ("segment", "vqa") and kind in ("absent", "presence")
    if family == "segment" and (refused or (dialogue.masks is not None and len(dialogue.masks))):
        if any(_NOT_IN_PARTS.search(_bare(text)) for turn in dialogue.turns for text in (turn.prompt, turn.answer)):
            return None
        masks = dialogue.masks if dialogue.masks is not None else torch.zeros(0, window.canvas, window.canvas, dtype=torch.bool)
        if not all(_inside(mask, window) for mask in masks):
            return None
        shown = [torch.from_numpy(transform(image=mask.numpy().astype(np.uint8), mask=mask.numpy().astype(np.uint8))["mask"] > 0) for mask in masks]
        return replace(dialogue, masks=torch.stack(shown) if shown else dialogue.masks)
    if refused:
        said_no = all(turn.answer.strip(" .").lower() == "no" for turn in dialogue.turns)
        return dialogue if said_no and not any(_NOT_IN_PARTS.search(_bare(turn.prompt)) for turn in dialogue.turns) else None
    if family == "refer":
        return _cropped_boxes(dialogue, window, frame)
    return None


def _cropped_boxes(dialogue: Dialogue, window: Window, frame: Frame) -> Dialogue | None:
    """A dialogue of boxes, in hundredths of the image before and of the window after; None unless all lie inside."""
    turns = []
    for turn in dialogue.turns:
        if _NOT_IN_PARTS.search(_bare(f"{turn.prompt} {_BOX.sub('', turn.answer).removeprefix('It is at')}")) or _BOX.search(turn.prompt):
            return None
        moved = [_cropped_box(match, window, frame) for match in _BOX.finditer(turn.answer)]
        if None in moved or not moved:
            return None
        pieces = _BOX.sub("\0", turn.answer).split("\0")
        turns.append(Turn(turn.prompt, "".join(f"{piece}{box or ''}" for piece, box in zip(pieces, [*moved, ""], strict=True))))
    return replace(dialogue, turns=tuple(turns), references=())


def _cropped_box(match: re.Match[str], window: Window, frame: Frame) -> str | None:
    if match[5]:
        return None
    across, down = frame.width * frame.scale / 100, frame.height * frame.scale / 100
    x1, y1, x2, y2 = (int(side) for side in match.groups()[:4])
    places = [
        100 * (side * step + offset - start) / window.side
        for side, step, offset, start in (
            (x1, across, frame.left, window.left), (y1, down, frame.top, window.top), (x2, across, frame.left, window.left), (y2, down, frame.top, window.top),
        )
    ]  # fmt: skip
    if min(places) < 0 or max(places) > 100:
        return None
    return "{" + "".join(f"<{round(place)}>" for place in places) + "}"


def _inside(mask: Bool[Tensor, "h w"], window: Window) -> bool:
    """Whether all of a mask lies in a window, and there is some; a mask that reaches its border may go on beyond it."""
    top, left, end = window.top, window.left, window.side
    part = mask[top : top + end, left : left + end]
    return bool(part.any()) and int(part.sum()) == int(mask.sum())


def _bare(text: str) -> str:
    """A text without its tag and without the words of requests that every question has."""
    return re.sub(r"^\[\w+\]|\[SEG\]|(?:show|give) me|in (?:this|the) image|is there|are there", "", text)
