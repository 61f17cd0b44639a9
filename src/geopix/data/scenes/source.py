"""Scenes as a data set: endless for training, fixed for evaluation, deterministic by (seed, split, index)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from geopix.data.scenes.catalogue import CLASSES
from geopix.data.scenes.dialogues import KINDS, Spoken, talk
from geopix.data.scenes.phrases import plural
from geopix.data.scenes.records import Scene
from geopix.data.scenes.render import LEVELS, render
from geopix.data.source import Source
from geopix.rle import encode_rle
from geopix.types import Dialogue, Frame, Sample

DEFAULT_MIX = {"segment": 6.0, "refer": 1.0, "vqa": 3.0, "caption": 1.0}


class Scenes(Source):
    """Procedural overhead images with dialogues about them.

    Args:
        level: how hard: easy, standard or hard.
        split: train, val, test or any other word; no two splits share an image.
        size: rows and columns of an image in pixels.
        count: images; None for no end.
        dialogues: dialogues per image.
        mix: weights by task family (segment, refer, caption, vqa) or ``family/kind``.
        seed: of the whole set.
        unseen: classes that no dialogue is about or mentions, though images show them; for training a model that is tested on them later.

    Raises:
        ValueError: when ``unseen`` names no class of the scenes.
    """

    bands = 3
    kinds = frozenset(KINDS)

    def __init__(
        self,
        level: Literal["easy", "standard", "hard"] = "standard",
        split: str = "train",
        size: int = 128,
        count: int | None = None,
        dialogues: int = 8,
        mix: dict[str, float] | None = None,
        seed: int = 0,
        unseen: Sequence[str] = (),
    ) -> None:
        if strange := set(unseen) - set(CLASSES):
            raise ValueError(f"unseen names {sorted(strange)}, which scenes do not show; expected some of {', '.join(CLASSES)}.")
        self.level, self.split, self.size, self.count = level, split, size, count
        self.dialogues, self.mix, self.seed = dialogues, mix or DEFAULT_MIX, seed
        self.title = f"scenes {level} {split}, {count or 'endless'} images of {size} px, {dialogues} dialogues each, seed {seed}"
        self.title += f", without {', '.join(sorted(unseen))}" if unseen else ""
        self._unseen = re.compile(rf"\b({'|'.join(form for name in unseen for form in (name, plural(name)))})\b") if unseen else None

    @property
    def identity(self) -> str:
        """Title and mix."""
        return f"{self.title}, mix {self.mix}"

    def check(self) -> None:
        """Draw one scene with the mix, so that an unknown task in it is told at once."""
        self.sample(0)

    def scene(self, index: int) -> Scene:
        """The scene of an index, with all that is known about it."""
        return render(self.seed, self.split, index, level=LEVELS[self.level], size=self.size)

    def spoken(self, scene: Scene, index: int, mix: Mapping[str, float] | None = None) -> list[Spoken]:
        """What is said about the scene of an index."""
        words = np.frombuffer(f"{self.split}/{self.level}".encode(), dtype=np.uint8)
        said = talk(scene, np.random.default_rng([self.seed, index, *words.tolist()]), mix or self.mix, self.dialogues)
        if (unseen := self._unseen) is None:
            return said
        return [each for each in said if not any(unseen.search(f"{turn.prompt} {turn.answer}".lower()) for turn in each.turns)]

    def sample(self, index: int, mix: Mapping[str, float] | None = None, *, truth: bool = False, epoch: int = 0) -> Sample:
        """One scene with its dialogues, the same in every epoch (more scenes, not epochs, say more); see :meth:`geopix.data.source.Source.sample`."""
        scene = self.scene(index)
        spoken = self.spoken(scene, index, mix)
        frame = Frame(self.size, self.size, 1.0, 0, 0, (self.size, self.size))
        return Sample(
            image=torch.from_numpy(scene.image).permute(2, 0, 1).float() / 255,
            dialogues=tuple(self._dialogue(scene, said) for said in spoken),
            key=f"{self.level}-{self.split}-{index:06d}",
            frame=frame,
            truth=tuple(tuple(encode_rle(_union(scene, target)) for target in said.targets) for said in spoken) if truth else None,
            unions=tuple(tuple(encode_rle(_class_union(scene, target)) for target in said.targets) for said in spoken) if truth else None,
        )

    def _dialogue(self, scene: Scene, said: Spoken) -> Dialogue:
        masks = [_union(scene, target) for target in said.targets]
        stacked = torch.stack(masks) if masks else torch.zeros(0, self.size, self.size, dtype=torch.bool)
        return Dialogue(said.turns, stacked, said.classes, said.task)


class SceneTexts:
    """Everything that is said about some training scenes: what the embedded tokenizer is trained from.

    Args:
        level: of the scenes.
        scenes: how many of them.
        seed: of the set.
    """

    def __init__(self, level: Literal["easy", "standard", "hard"] = "standard", scenes: int = 1000, seed: int = 0) -> None:
        self.source = Scenes(level, "train", 64, scenes, dialogues=12, seed=seed)

    def texts(self) -> Iterable[str]:
        """Prompts and answers, in order."""
        for index in range(self.source.count or 0):
            for said in self.source.spoken(self.source.scene(index), index):
                for turn in said.turns:
                    yield turn.prompt
                    yield turn.answer


def _union(scene: Scene, target: tuple[int, ...]) -> Bool[Tensor, "h w"]:
    return torch.from_numpy(np.logical_or.reduce([scene.instances[index].mask for index in target]))


def _class_union(scene: Scene, target: tuple[int, ...]) -> Bool[Tensor, "h w"]:
    names = {scene.instances[index].name for index in target}
    return torch.from_numpy(np.logical_or.reduce([instance.mask for instance in scene.instances if instance.name in names]))
