"""Scenes as an input: pictures as PNG files and records with masks, classes and ground sampling; what else is known of a scene stays behind."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Literal

import cv2
import torch

from geopix.data.build.shards import Made, run_shards
from geopix.data.records import instance
from geopix.data.scenes import Scenes
from geopix.rle import encode_rle

SHARD = 32


def draw_scenes(
    output: Path, *, level: Literal["easy", "standard", "hard"], split: str = "train", count: int, size: int, seed: int = 0, workers: int = 1
) -> None:
    """Writes scenes as records with masks and classes, and their pictures in ``<name>_images`` beside them.

    The parts stay until :func:`geopix.data.build.shards.clear` removes them, so that an interrupted job need not draw again.

    Args:
        output: the JSONL to write.
        level, split, size, seed: of the scenes.
        count: how many.
        workers: processes.
    """
    folder = output.with_name(f"{output.stem}_images")
    folder.mkdir(parents=True, exist_ok=True)
    job = {"level": level, "split": split, "count": count, "size": size, "seed": seed}
    shards = [range(start, min(start + SHARD, count)) for start in range(0, count, SHARD)]
    run_shards(partial(_draw, Scenes(level, split, size, seed=seed), folder), shards, output, job, workers=workers)


def _draw(source: Scenes, folder: Path, shard: range) -> Made:
    made = Made()
    for index in shard:
        scene = source.scene(index)
        key = f"{source.level}-{source.split}-{index:06d}"
        if not cv2.imwrite(str(folder / f"{key}.png"), scene.image[..., ::-1]):
            raise ValueError(f"{folder / key}.png cannot be written; is there space left in {folder}?")
        instances = [
            instance(number, dict(encode_rle(torch.from_numpy(one.mask))), of_class=one.name, box=[float(side) for side in one.box])
            for number, one in enumerate(scene.instances)
        ]
        made.records.append(
            {
                "image": f"{folder.name}/{key}.png", "key": key, "split": source.split, "licence": "made by the program",
                "source": f"scenes {source.level}, seed {source.seed}", "gsd": round(scene.gsd, 5), "instances": instances, "dialogues": [],
            }
        )  # fmt: skip
        made.tally["records"] += 1
    return made
