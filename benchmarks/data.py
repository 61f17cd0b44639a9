"""How fast samples are read: images a second for PNG, JPEG, windows of a large GeoTIFF, and shards, on one process; and what it saves to decode only the
masks that a step uses.

Images of 512 px of scenes with 20 instances each, 20 dialogues, letterboxed to 512 px; a step asks 3 dialogues. Each line is the median of some passes;
all forms take turns, so that what else the machine does meets all of them.
Shards need the extra streaming.

    python benchmarks/data.py
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from PIL import Image

from geopix.data.instruct import RealImages
from geopix.data.pack import PackedImages, pack
from geopix.data.records import dialogue, instance, write_records
from geopix.data.scenes import Scenes
from geopix.data.source import Source
from geopix.rle import encode_rle

RESULTS = Path(__file__).parent / "results" / "costs" / "data.json"
SIZE, INSTANCES, ASKED = 512, 20, 3


def main() -> None:
    """Write the same images in each form, read them, and print the rates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--passes", type=int, default=5)
    said = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sources = written(folder, said.images) | {"png, all masks": RealImages(folder / "png.jsonl", SIZE)}
        passes = [{form: measured(source) for form, source in sources.items()} for _ in range(said.passes + 1)]
        rates = {form: statistics.median(each[form] for each in passes[1:]) for form in sources}
    base = rates["png"]
    for form, rate in rates.items():
        print(f"{form:24s} {rate:7.1f} images/s   {rate / base:5.2f} of png")
    found = {
        "images": said.images,
        "size": SIZE,
        "instances": INSTANCES,
        "asked": ASKED,
        "of_png": {form: round(rate / base, 3) for form, rate in rates.items()},
    }
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(found | {"images_per_second": {form: round(rate, 1) for form, rate in rates.items()}}, indent=1) + "\n", encoding="utf-8")


def written(folder: Path, count: int) -> dict[str, Source]:
    """The same records with their images in each form."""
    scenes = Scenes("standard", "train", SIZE)
    pictures = [np.ascontiguousarray(scenes.scene(index).image) for index in range(count)]
    masks = discs(count)
    across = int(np.ceil(np.sqrt(count)))
    mosaic = np.zeros((across * SIZE, across * SIZE, 3), dtype=np.uint8)
    for index, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / f"{index}.png")
        Image.fromarray(picture).save(folder / f"{index}.jpg", quality=92)
        row, column = divmod(index, across)
        mosaic[row * SIZE : (row + 1) * SIZE, column * SIZE : (column + 1) * SIZE] = picture
    tiled = {"driver": "GTiff", "tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "deflate", "dtype": "uint8"}
    with rasterio.open(folder / "mosaic.tif", "w", width=mosaic.shape[1], height=mosaic.shape[0], count=3, **tiled) as file:
        file.write(mosaic.transpose(2, 0, 1))

    def records(place: Callable[[int], dict[str, Any]]) -> list[dict[str, Any]]:
        return [place(index) | {"key": str(index), "instances": masks[index], "dialogues": talks()} for index in range(count)]

    write_records(folder / "png.jsonl", records(lambda index: {"image": f"{index}.png"}))
    write_records(folder / "jpeg.jsonl", records(lambda index: {"image": f"{index}.jpg"}))
    write_records(
        folder / "geotiff windows.jsonl",
        records(lambda index: {"image": "mosaic.tif", "window": [index % across * SIZE, index // across * SIZE, SIZE, SIZE]}),
    )
    pack(folder / "png.jsonl", folder / "shards")
    sources: dict[str, Source] = {form: RealImages(folder / f"{form}.jsonl", SIZE, dialogues=ASKED) for form in ("png", "jpeg", "geotiff windows")}
    return sources | {"shards": PackedImages(str(folder / "shards"), SIZE, dialogues=ASKED)}


def discs(count: int) -> list[list[dict[str, Any]]]:
    """Instances with masks as RLE."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    found = []
    for _ in range(count):
        places = rng.integers(20, SIZE - 20, (INSTANCES, 2))
        masks = [torch.from_numpy((rows - y) ** 2 + (columns - x) ** 2 < 15**2) for y, x in places.tolist()]
        found.append([instance(number, dict(encode_rle(mask)), of_class="storage tank") for number, mask in enumerate(masks)])
    return found


def talks() -> list[dict[str, Any]]:
    """One question for each instance."""
    return [dialogue("segment/single", [(f"[segment] where is tank {number}?", f"Tank {number} is [SEG].")], [[number]]) for number in range(INSTANCES)]


def measured(source: Source) -> float:
    """Images a second of one pass over all of them."""
    assert source.count is not None
    began = time.perf_counter()
    for index in range(source.count):
        source.sample(index)
    return source.count / (time.perf_counter() - began)


if __name__ == "__main__":
    main()
