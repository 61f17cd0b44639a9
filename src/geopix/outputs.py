"""What ``geopix predict`` leaves in a folder: answers and masks as JSONL, pictures, and GeoTIFF and GeoJSON where the image has a place on earth."""

from __future__ import annotations

import json
import re
import shutil
import warnings
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import rasterio
import torch
from jaxtyping import Bool, UInt8
from PIL import Image
from rasterio import Affine
from rasterio.crs import CRS
from torch import Tensor

from geopix.pictures import overlay
from geopix.polygons import Feature, on_earth, vectorise
from geopix.rle import encode_rle
from geopix.types import RLE, SEG, Georeference

ANSWERS = "answers.jsonl"

UNFINISHED = "unfinished.part"
"""Folder for the files of the image that is being written; what a killed run left in it is deleted."""

ELSEWHERE = "choose another folder with --trainer.callbacks.output FOLDER"
"""What a message advises: the option of :class:`geopix.predictions.WritePredictions`, the last callback of every configuration that has it."""

Status = Literal["ok", "no_mask", "empty_mask"]
"""``no_mask``: the answer has no ``[SEG]``. ``empty_mask``: it has, but at least one of its masks holds no pixel."""


Score = Mapping[str, float]
"""How sure the model is of one mask, each in 0..1. ``probability``: the highest of any pixel that has data. Where the decoder states it, ``presence``: that the
thing is there at all, and ``quality``: the IoU that it expects."""


@dataclass(frozen=True)
class Answered:
    """One question about an image, what was answered and what was drawn. A dialogue of several turns is several of these.

    Args:
        masks: at the image's own size, one per ``[SEG]`` of the answer, in order.
        labels: a short name for each mask; by default the prompt, numbered where it has several masks.
        scores: how sure the model is of each mask; may be left out.

    Raises:
        ValueError: when masks, ``[SEG]``, labels and scores differ in number.
    """

    prompt: str
    answer: str
    masks: Bool[Tensor, "m h w"]
    labels: tuple[str, ...] = ()
    scores: tuple[Score, ...] = ()

    def __post_init__(self) -> None:
        written = self.answer.count(SEG)
        if written != len(self.masks):
            raise ValueError(f"the answer {self.answer!r} holds {written} {SEG} but {len(self.masks)} masks were drawn; give one mask per {SEG}.")
        for name, values in (("labels", self.labels), ("scores", self.scores)):
            if values and len(values) != len(self.masks):
                raise ValueError(f"{len(values)} {name} for {len(self.masks)} masks of {self.prompt!r}; give one per mask or none at all.")

    @property
    def names(self) -> tuple[str, ...]:
        """A label for each mask, always."""
        if self.labels:
            return self.labels
        return (self.prompt,) if len(self.masks) == 1 else tuple(f"{self.prompt} ({i})" for i in range(1, len(self.masks) + 1))

    @property
    def status(self) -> Status:
        """Whether there is a mask to look at."""
        if not len(self.masks):
            return "no_mask"
        return "ok" if bool(self.masks.flatten(1).any(1).all()) else "empty_mask"


def split_turns(prompts: Sequence[str], answers: Sequence[str], masks: Bool[Tensor, "m h w"], scores: Sequence[Score] = ()) -> tuple[Answered, ...]:
    """A dialogue of several turns as one :class:`Answered` per turn; masks and their scores are dealt out by the ``[SEG]`` of each answer."""
    ends = np.cumsum([answer.count(SEG) for answer in answers]).tolist()
    starts = [0, *ends[:-1]]
    ends[-1] = len(masks)  # a surplus is refused by the last turn rather than dropped here
    return tuple(Answered(p, a, masks[i:j], scores=tuple(scores[i:j])) for p, a, i, j in zip(prompts, answers, starts, ends, strict=True))


class AnswerWriter:
    """Writes what was answered and drawn, image by image, into a folder.

    Per image: one line of ``answers.jsonl`` and ``<key>.png``, a picture with legend. For an image with a georeference and at least one
    mask also ``<key>.tif``, one 0/1 band per mask in the image's own CRS and grid, and ``<key>.geojson``, its polygons in WGS84. The
    number of a mask is the same everywhere: in the picture, as band of the GeoTIFF, and as ``index`` in JSONL and GeoJSON; it counts from 1.

    Every line is written out at once, so a run that is killed keeps what it has. An image's files are put in place after its line, so a killed run leaves
    none that no line lists; the last line may then list files that are not there.

    Args:
        folder: made when it does not exist.
        overwrite: delete the files that an earlier run listed in ``answers.jsonl``. Files of other origin are never replaced.

    Raises:
        ValueError: when the folder holds the answers of another run and ``overwrite`` is False.
    """

    def __init__(self, folder: Path, *, overwrite: bool = False) -> None:
        self.folder = Path(folder)
        self.counts: Counter[Status] = Counter()
        """How many answers had each status so far."""
        self._names: dict[str, str] = {}
        self._unfinished = self.folder / UNFINISHED
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(f"{self.folder} is a file, but answers need a folder; {ELSEWHERE}.")
        self.folder.mkdir(parents=True, exist_ok=True)
        index = self.folder / ANSWERS
        if index.exists() and index.stat().st_size:
            if not overwrite:
                raise ValueError(
                    f"{index} holds the answers of an earlier run, which are not overwritten; {ELSEWHERE}, "
                    "or say --trainer.callbacks.overwrite true (in code overwrite=True)."
                )
            for name in _listed(index):
                (self.folder / name).unlink(missing_ok=True)
        shutil.rmtree(self._unfinished, ignore_errors=True)
        index.write_text("")

    def write(
        self,
        key: str,
        image: UInt8[np.ndarray, "h w 3"],
        answered: Sequence[Answered],
        *,
        source: Path | None = None,
        georeference: Georeference | None = None,
    ) -> dict[str, Path]:
        """Writes one image's answers.

        Args:
            key: unique in this run; what cannot stand in a file name is replaced (``/`` by ``__``).
            image: as shown in the picture, at its own size.
            answered: each question about it.
            source: the image's file, named in the JSONL.
            georeference: of the image, where it has one.

        Returns:
            The files written, by kind: picture, masks, vectors.

        Raises:
            ValueError: for a key that was written before, masks of another size than the image, or a file that is not this run's to replace.
        """
        size = image.shape[:2]
        for one in answered:
            if tuple(one.masks.shape[1:]) != size:
                raise ValueError(f"masks of {tuple(one.masks.shape[1:])} rows and columns for the image {key!r} of {size}; bring them to its own size first.")
        files = self._claim(key, _kinds(key, georeference, any(len(one.masks) for one in answered)))
        self._unfinished.mkdir(exist_ok=True)
        parts = {kind: self._unfinished / path.name for kind, path in files.items()}
        _draw(parts, image, answered, georeference)
        record = {
            "key": key,
            "image": str(source) if source is not None else None,
            "size": list(size),
            "files": {kind: path.name for kind, path in files.items()},
            "dialogues": list(_records(answered)),
        }
        with (self.folder / ANSWERS).open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(record) + "\n")
        for kind, path in files.items():
            parts[kind].replace(path)
        self._unfinished.rmdir()
        self.counts.update(one.status for one in answered)
        return files

    def _claim(self, key: str, kinds: Mapping[str, str]) -> dict[str, Path]:
        """Paths for an image's files, none of which exists."""
        if key in self._names.values():
            raise ValueError(f"the image {key!r} was written before in this run; keys must be unique, so give each image its own name.")
        name = _file_name(key)
        if name.casefold() in self._names:
            name = f"{name}-{zlib.crc32(key.encode('utf-8', 'replace')):08x}"
        files = {kind: self.folder / f"{name}{suffix}" for kind, suffix in kinds.items()}
        for path in files.values():
            if path.exists():
                raise ValueError(f"{path} exists and is not of this run, so it is not overwritten (is it an input?); {ELSEWHERE}.")
        self._names[name.casefold()] = key
        return files


def _kinds(key: str, georeference: Georeference | None, drawn: bool) -> dict[str, str]:
    """What an image gets beside its line: suffixes by kind."""
    if georeference is None or not drawn:
        return {"picture": ".png"}
    if on_earth(georeference):
        return {"picture": ".png", "masks": ".tif", "vectors": ".geojson"}
    warnings.warn(f"{key} has a grid but no CRS that leads to the earth: its masks are written as GeoTIFF, not as GeoJSON.", stacklevel=3)
    return {"picture": ".png", "masks": ".tif"}


def _draw(files: Mapping[str, Path], image: UInt8[np.ndarray, "h w 3"], answered: Sequence[Answered], georeference: Georeference | None) -> None:
    masks = torch.cat([torch.zeros(0, *image.shape[:2], dtype=torch.bool), *(one.masks.detach().cpu() for one in answered)])
    labels = [name for one in answered for name in one.names]
    picture = overlay(image, masks.numpy(), labels, [(one.prompt, one.answer) for one in answered])
    Image.fromarray(picture).save(files["picture"])
    if georeference is not None and "masks" in files:
        _write_geotiff(files["masks"], masks, labels, georeference)
    if georeference is not None and "vectors" in files:
        _write_geojson(files["vectors"], answered, georeference)


def _write_geotiff(path: Path, masks: Tensor, labels: Sequence[str], georeference: Georeference) -> None:
    number, height, width = masks.shape
    kind = {"driver": "GTiff", "dtype": "uint8", "compress": "deflate", "bigtiff": "IF_SAFER"}
    # GDAL would take 3 or 4 byte bands for colours and transparency unless told otherwise
    bands = {"photometric": "MINISBLACK", "alpha": "NO"}
    tiles = {"tiled": True, "blockxsize": 256, "blockysize": 256} if max(height, width) > 512 else {}
    crs = CRS.from_wkt(georeference["crs"]) if georeference["crs"] else None
    grid = {"count": number, "height": height, "width": width, "crs": crs, "transform": Affine(*georeference["transform"])}
    with rasterio.open(path, "w", **kind, **bands, **tiles, **grid) as raster:
        raster.write(masks.numpy().astype(np.uint8))
        for band, label in enumerate(labels, 1):
            raster.set_band_description(band, label.encode("utf-8", "replace").decode())


def _write_geojson(path: Path, answered: Sequence[Answered], georeference: Georeference) -> None:
    features, index = list[Feature](), 0
    for one in answered:
        for mask, label, score in zip(one.masks, one.names, one.scores or ({},) * len(one.masks), strict=True):
            index += 1
            features += vectorise(mask, georeference, {"prompt": one.prompt, "label": label, "index": index, **score})
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}), encoding="utf-8")


def _records(answered: Sequence[Answered]) -> Iterator[dict[str, object]]:
    first = 1
    for one in answered:
        encoded: list[RLE] = [encode_rle(mask) for mask in one.masks]
        yield {
            "prompt": one.prompt,
            "answer": one.answer,
            "status": one.status,
            "index": list(range(first, first + len(encoded))),
            "labels": list(one.names),
            "scores": list(one.scores),
            "boxes": [_box(mask) for mask in one.masks],
            "area_px": [int(mask.sum()) for mask in one.masks],
            "masks": encoded,
        }
        first += len(encoded)


def _box(mask: Tensor) -> list[int] | None:
    """Left, top, right and bottom edge in pixels, the last two exclusive; None for an empty mask."""
    rows, columns = mask.any(1).nonzero().flatten().tolist(), mask.any(0).nonzero().flatten().tolist()
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1] if rows else None


def _file_name(key: str) -> str:
    name = re.sub(r"[^\w.\- ]", "_", re.sub(r"[/\\]+", "__", key.strip("/\\"))).strip(". ") or "image"
    if len(name.encode("utf-8", "replace")) > 180:  # most file systems end at 255 bytes
        name = f"{name.encode('utf-8', 'replace')[:160].decode('utf-8', 'ignore')}-{zlib.crc32(key.encode('utf-8', 'replace')):08x}"
    return name


def _listed(index: Path) -> list[str]:
    try:
        lines = index.read_text(encoding="utf-8").splitlines(keepends=True)
        if lines and lines[-1].startswith('{"key": ') and not lines[-1].endswith("\n"):
            lines.pop()  # cut off by a kill, before its files were put in place
        return [Path(name).name for line in map(json.loads, filter(str.strip, lines)) for name in line["files"].values()]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{index} is not of geopix ({error}), so nothing is overwritten; {ELSEWHERE}.") from error
