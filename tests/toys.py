"""Toy images for tests: a red ship and a green plane on grey ground, places and sizes by number, with one dialogue of each kind."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor

from geopix.data.source import Source
from geopix.rle import encode_rle
from geopix.task import GeoPixTask
from geopix.types import Batch, Dialogue, Drawing, Frame, Prediction, Sample, Turn

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
        odd: what is said about images of odd number instead, whatever the mix.
    """

    bands = 3

    def __init__(self, count: int | None = None, kinds: tuple[str, ...] = KINDS, odd: tuple[str, ...] = ()) -> None:
        self.count, self.kinds, self.odd = count, kinds, odd
        self.title = f"toys, {count} images"
        self.asked: list[tuple[int, dict[str, float] | None]] = []

    def check(self) -> None:
        """Nothing can be wrong."""

    def sample(self, index: int, mix: Mapping[str, float] | None = None, *, truth: bool = False, epoch: int = 0) -> Sample:
        """One image; a mix keeps the kinds that it names, by family or kind."""
        self.asked.append((index, None if mix is None else dict(mix)))
        kinds = [kind for kind in self.kinds if mix is None or {kind, kind.split("/")[0]} & set(mix)]
        return sample(index, *(self.odd if self.odd and index % 2 else kinds), truth=truth)


def trainer(folder: Path, *callbacks: Callback, **settings: Any) -> Trainer:
    """A silent trainer on the CPU, as the command line sets it up."""
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary", "use_distributed_sampler"), False)
    fixed = {"accelerator": "cpu", "devices": 1, "max_epochs": 1, "num_sanity_val_steps": 0, "default_root_dir": folder}
    return Trainer(callbacks=list(callbacks), **{**quiet, **fixed, **settings})


class Guessing(GeoPixTask):
    """A task whose answers are the truth made worse in a way that depends on the image: scores without training."""

    def answer(self, batch: Batch) -> Prediction:
        """True words; masks moved by some pixels; every third image is answered with nothing."""
        number = [int(key.split("-")[1]) for key in batch.keys]
        of = [number[image] for image in batch.image_index.tolist()]
        answers = tuple(tuple(turn.answer if of[row] % 3 else "" for turn in turns) for row, turns in enumerate(batch.dialogues))
        kept = torch.tensor([of[row] % 3 > 0 for row in batch.dialogue_index.tolist()], dtype=torch.bool)
        moved = [mask.roll(of[row], 1) for mask, row in zip(batch.masks, batch.dialogue_index.tolist(), strict=True)]
        logits = (torch.stack(moved) if moved else batch.masks)[kept].float() * 2 - 1
        return Prediction(answers, Drawing(logits, batch.dialogue_index[kept]))
