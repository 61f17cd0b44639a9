"""Toy images for tests: a red ship and a green plane on grey ground, places and sizes by number, with one dialogue of each kind."""

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from geopix.data.source import Source, collate
from geopix.rle import encode_rle
from geopix.types import Batch, Dialogue, Frame, Sample, Turn
from tests import tiny

SIZE = 64


def scene(index: int, size: int = SIZE) -> tuple[Tensor, Tensor, Tensor]:
    """An image with the masks of its ship and its plane."""
    ship, plane = torch.zeros(2, size, size, dtype=torch.bool)
    top, left = 4 + 8 * (index % 3), 6 + 4 * (index % 2)
    ship[top : top + 12, left : left + 20] = True
    plane[size - top - 14 : size - top, size - left - 16 : size - left] = True
    image = torch.full((3, size, size), 0.4) + 0.02 * torch.randn(3, size, size, generator=torch.Generator().manual_seed(index))
    image[:, ship] = torch.tensor([0.9, 0.1, 0.1])[:, None]
    image[:, plane] = torch.tensor([0.1, 0.9, 0.2])[:, None]
    return image.clamp(0, 1), ship, plane


def dialogue(task: str, ship: Tensor, plane: Tensor) -> Dialogue:
    """What is said about such an image."""
    one, both, none = torch.stack([ship]), torch.stack([ship, plane]), ship.new_zeros(0, *ship.shape)
    said: dict[str, tuple[tuple[Turn, ...], Tensor, tuple[str | None, ...]]] = {
        "segment/single": ((Turn("[segment] can you segment the red ship?", "Sure, it is [SEG]."),), one, ("ship",)),
        "segment/multi": ((Turn("[segment] the ship, and then the large plane", "Sure, they are [SEG] and [SEG]."),), both, ("ship", "plane")),
        "segment/absent": ((Turn("[segment] the building?", "There is no building in this image."),), none, ()),
        "segment/followup": (
            (Turn("[vqa] is there a plane in the image?", "yes"), Turn("[segment] can you segment the plane?", "Sure, it is [SEG].")),
            torch.stack([plane]),
            (None,),
        ),
        "vqa/presence": ((Turn("[vqa] is there a building?", "no"),), none, ()),
        "caption/scene": ((Turn("[caption] Describe the image in detail", "there is a ship at the top left."),), none, ()),
    }
    return Dialogue(*said[task], task)


KINDS = ("segment/single", "segment/multi", "segment/absent", "segment/followup", "vqa/presence", "caption/scene")


def sample(index: int, *kinds: str, truth: bool = True, size: int = SIZE) -> Sample:
    """One image with a dialogue of each given kind; the union of a target's class is the target, for there is one of each."""
    image, ship, plane = scene(index, size)
    dialogues = tuple(dialogue(kind, ship, plane) for kind in kinds)
    masks = tuple(tuple(map(encode_rle, each.masks)) for each in dialogues) if truth else None
    return Sample(image, dialogues, f"toy-{index}", Frame(size, size, 1.0, 0, 0, (size, size)), masks, masks)


class Toys(Source):
    """Toy images as a data set; remembers what it was asked for.

    Args:
        count: how many images; None for no end.
        kinds: what is said about each image where no mix says otherwise.
        captions_from: images from this one on have a caption alone.
    """

    bands = 3

    def __init__(self, count: int | None = None, kinds: tuple[str, ...] = KINDS, captions_from: int | None = None) -> None:
        self.count, self.kinds, self.captions_from = count, kinds, captions_from
        self.title = f"toys, {count} images"
        self.asked: list[tuple[int, dict[str, float] | None]] = []

    def check(self) -> None:
        """Nothing can be wrong."""

    def sample(self, index: int, mix: Mapping[str, float] | None = None, *, truth: bool = False) -> Sample:
        """One image; a mix keeps the kinds that it names, by family or kind."""
        self.asked.append((index, None if mix is None else dict(mix)))
        kinds = [kind for kind in self.kinds if mix is None or {kind, kind.split("/")[0]} & set(mix)]
        if self.captions_from is not None and index >= self.captions_from:
            kinds = ["caption/scene"]
        return sample(index, *kinds, truth=truth)


def small_model(**slots):
    """The tiny model with a wider language model, and slots replaced: it learns the toys by heart in seconds."""
    parts = {"memory": True, **slots}
    return tiny.model(**parts)


def batch(*samples: Sample, join: int = 1) -> Batch:
    """Samples in one batch."""
    return collate(samples, join)


captions_only = partial(sample, 0, "caption/scene")
