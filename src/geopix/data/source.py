"""What every data set is to the rest of geopix, and how its samples become batches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from itertools import chain

import torch

from geopix.types import RLE, Batch, Dialogue, Sample


class Source(ABC):
    """Images with dialogues about them. It knows nothing of any model.

    Attributes:
        bands: image bands of every sample.
        count: how many images there are; None when they never end.
        title: what it is called in results, in one line.
        kinds: every task that its dialogues may have, as ``family/kind``; empty where that is not known.
        remarks: what must be known beside every number that is made with it, such as counts other than those published.
        blocks: how many images, one after the other, are cheap to read together; None where it does not matter.
    """

    bands: int
    count: int | None
    title: str
    kinds: frozenset[str] = frozenset()
    remarks: Sequence[str] = ()
    blocks: Sequence[int] | None = None

    @property
    def identity(self) -> str:
        """All that its samples depend on, in one line: a test goes on only with what the same source gave before. The title, unless more can change."""
        return self.title

    @abstractmethod
    def sample(self, index: int, mix: Mapping[str, float] | None = None, *, truth: bool = False, epoch: int = 0) -> Sample:
        """One image with its dialogues; the same arguments give the same sample, always.

        Args:
            index: below ``count``, or any where images never end.
            mix: weights by task family or ``family/kind`` to draw the dialogues by; None keeps the source's own.
            truth: also give the masks at the image's own size, for evaluation.
            epoch: how often the image was shown before. A source that draws some of an image's dialogues draws anew in each; evaluation stays at 0.
        """

    def having(self, mix: Mapping[str, float]) -> Sequence[int] | None:
        """Positions of the images that have a dialogue which a mix allows, ascending; None where every image has one."""
        return None

    @abstractmethod
    def check(self) -> None:
        """Look for what would fail later, before anything expensive starts.

        Raises:
            ValueError: naming every problem that was found.
        """


def collate(samples: Sequence[Sample], join: int = 1) -> Batch:
    """Pack samples into one batch; masks and class names leave the dialogues.

    Args:
        join: ask up to this many of an image's dialogues in one, one after the other: its visual tokens are then read once for all of them.

    Raises:
        ValueError: when images of one batch differ in size, or a dialogue that writes ``[SEG]`` or names classes has no masks.
    """
    shapes = {tuple(sample.image.shape) for sample in samples}
    if len(shapes) != 1:
        raise ValueError(f"images of one batch must have one size; found {sorted(shapes)} in {[sample.key for sample in samples]}. Letterbox them to one size.")
    canvas = samples[0].image.shape[1:]
    talks = [[_join(sample.dialogues[start : start + join]) for start in range(0, len(sample.dialogues), join)] for sample in samples]
    dialogues = list(chain.from_iterable(talks))
    for dialogue in dialogues:
        if dialogue.masks is None and any("[SEG]" in turn.answer for turn in dialogue.turns):
            raise ValueError(f"an answer writes [SEG] but its dialogue has no masks to learn from: {dialogue.turns}")
        if dialogue.masks is None and dialogue.classes:
            raise ValueError(f"a dialogue names classes but has no masks that they belong to: {dialogue.classes}; give both or neither.")
    masks = [dialogue.masks if dialogue.masks is not None else torch.zeros(0, *canvas, dtype=torch.bool) for dialogue in dialogues]
    classes = [dialogue.classes or (None,) * len(mask) for dialogue, mask in zip(dialogues, masks, strict=True)]
    return Batch(
        images=torch.stack([sample.image for sample in samples]),
        dialogues=tuple(dialogue.turns for dialogue in dialogues),
        tasks=tuple(dialogue.task for dialogue in dialogues),
        image_index=_owners([len(talk) for talk in talks]),
        masks=torch.cat(masks) if masks else torch.zeros(0, *canvas, dtype=torch.bool),
        dialogue_index=_owners([len(mask) for mask in masks]),
        classes=tuple(chain.from_iterable(classes)),
        keys=tuple(sample.key for sample in samples),
        frames=tuple(sample.frame for sample in samples),
        truth=_flat([sample.truth for sample in samples]),
        unions=_flat([sample.unions for sample in samples]),
        georeferences=tuple(sample.georeference for sample in samples),
        references=tuple(dialogue.references for dialogue in dialogues),
    )


def _join(dialogues: Sequence[Dialogue]) -> Dialogue:
    """Several dialogues about one image, asked one after the other."""
    if len(dialogues) == 1:
        return dialogues[0]
    masks = [dialogue.masks for dialogue in dialogues if dialogue.masks is not None]
    classes = [dialogue.classes or (None,) * len(dialogue.masks) for dialogue in dialogues if dialogue.masks is not None]
    return Dialogue(
        tuple(chain.from_iterable(dialogue.turns for dialogue in dialogues)),
        torch.cat(masks) if masks else None,
        tuple(chain.from_iterable(classes)),
        dialogues[0].task,
        dialogues[-1].references,
    )


def _owners(counts: Sequence[int]) -> torch.Tensor:
    """For each of the packed things, the index of its owner: counts [2, 0, 1] give [0, 0, 2]."""
    return torch.arange(len(counts)).repeat_interleave(torch.tensor(counts, dtype=torch.long))


def _flat(given: Sequence[tuple[tuple[RLE, ...], ...] | None]) -> tuple[RLE, ...] | None:
    if any(masks is None for masks in given):
        return None
    return tuple(chain.from_iterable(chain.from_iterable(masks) for masks in given if masks is not None))
