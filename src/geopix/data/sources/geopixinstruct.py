"""GeoPixInstruct: a description, a box and a mask for each of many instances of SAMRS's pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

import pyarrow
import pyarrow.parquet as parquet

from geopix.data.images import describe
from geopix.data.records import Record
from geopix.data.sources.files import find_picture, grouped
from geopix.data.sources.names import class_name
from geopix.data.sources.pieces import expression, from_rle, open_picture, overlap, record_of, tight
from geopix.data.sources.reader import About, Reader, Report, compare_counts
from geopix.data.sources.samrs import PICTURES
from geopix.data.sources.wording import group, references
from geopix.rle import decode_rle

SUBSETS = ("SIOR", "FAST", "SOTA")
SAMPLED = 300
"""Instances per file whose masks tell how well each reading of its boxes fits."""

Boxes = Literal["xyxy", "xywh"]


@dataclass(frozen=True)
class GeoPixInstruct(Reader):
    """Referring expressions for single instances, and questions for two to four of them at once.

    Layout: ``data/SPLIT.SUBSET_T-*.parquet`` with one picture per row. The pictures are SAMRS's and lie in a folder of their own.
    Whether a box is ``x1 y1 x2 y2`` or ``x y width height`` is not published: it is decided per file by counting which boxes contradict which reading,
    then by how well they fit the masks, and told in the report.

    Args:
        root: the folder that holds ``data``.
        images: SAMRS's root, or the folder that ``image_path`` starts from; ``root`` unless given.
        split: train or valid.
        subset: one of the three, or all.
        boxes: count, or the reading to take without counting.
    """

    root: Path
    images: Path | None = None
    split: Literal["train", "valid"] = "train"
    subset: Literal["all", "SIOR", "FAST", "SOTA"] = "all"
    boxes: Literal["count", "xyxy", "xywh"] = "count"

    about = About(
        name="GeoPixInstruct",
        publication="arXiv 2501.06828; Norman-ou/GeoPixInstruct-Anno",
        licence="MIT for the annotations; pictures under the terms of SAMRS (research only), DOTA, DIOR and FAIR1M",
        protocol="mIoU by subset; here gIoU and cIoU of LISA, SIOR, FAST and SOTA apart",
        splits={
            "train.SIOR_T": 8992, "train.FAST_T": 36665, "train.SOTA_T": 9037, "valid.SIOR_T": 900, "valid.FAST_T": 2291, "valid.SOTA_T": 458,
        },
        uncertain=(
            "The paper tells of 65,463 pictures and 140,412 instances; 58,343 pictures are published, and no test split.",
            "The convention of bbox is not published; it is counted.",
            "The numbering of category_id is not published; only the category's name is used.",
            "The form of image_path is not published; it is looked for as given, by its name, and by its stem in SAMRS's folders.",
            "Whether one description may mean several instances is not published; equal descriptions in a picture are read as one for all of them.",
        ),
    )  # fmt: skip

    def records(self, report: Report) -> Iterator[Record]:
        """See :class:`geopix.data.sources.reader.Reader`."""
        for subset in SUBSETS if self.subset == "all" else (self.subset,):
            name = f"{self.split}.{subset}_T"
            files = sorted({*self.root.glob(f"data/{name}-*.parquet"), *self.root.glob(f"{name}-*.parquet"), *self.root.glob(f"data/{name}.parquet")})
            if not files:
                found = sorted(path.relative_to(self.root).as_posix() for path in self.root.rglob("*.parquet"))[:12]
                raise FileNotFoundError(f"{self.root} is not laid out as GeoPixInstruct: no file data/{name}-*.parquet; found {found}.")
            compare_counts(self.about, name, sum(_opened(path).metadata.num_rows for path in files), report)
            for path in files:
                reading = self.boxes if self.boxes != "count" else decide_boxes(path, report)
                for row in _rows(path):
                    record = self._record(row, subset, reading, report)
                    if record is not None:
                        yield record

    def _record(self, row: dict[str, Any], subset: str, reading: Boxes, report: Report) -> Record | None:
        key = str(row["image_id"])
        picture = open_picture(self._find(str(row["image_path"]), subset, report), report, f"{subset}/{key}")
        if picture is None:
            return None
        instances: dict[str, dict[str, Any]] = {}
        said: list[tuple[str, str]] = []
        for number, entry in enumerate(row["instances"]):
            name = str(entry.get("instance_id", number))
            name = name if name not in instances else f"{name}/{number}"
            box = _as_xyxy(entry["bbox"], reading) if entry.get("bbox") else None
            made = from_rle(picture, name, entry["mask"], report, of_class=class_name(entry.get("category", ""), report), box=box)
            text = expression(entry.get("description", ""), (), f"{picture.where}, instance {name}", report)
            if made is not None:
                instances[name] = made
                said += [] if text is None else [(text, name)]
        shared = {text: [name for _, name in same] for text, same in grouped(said, lambda pair: pair[0]).items()}
        alone = [(text, names[0]) for text, names in shared.items() if len(names) == 1]
        together = [group(text, key, names, "is") for text, names in shared.items() if len(names) > 1]
        for _ in together:
            report.note("description of several instances")
        dialogues = references(alone, key) + together
        if not dialogues:
            report.leave_out("picture without usable expressions", picture.where, "none of its instances has both a mask and a description")
            return None
        return record_of(self.about, picture, key, self.split, dialogues, list(instances.values()))

    def _find(self, written: str, subset: str, report: Report) -> Path:
        base = self.root if self.images is None else self.images
        written = written.replace("\\", "/").lstrip("/")
        name = Path(written).name
        for folder, kind in ((base, "as given"), *((base / folder, "in SAMRS's folders") for folder in PICTURES[subset]), (base, "by its name alone")):
            path = find_picture(folder, written if kind == "as given" else name)
            if path.is_file():
                report.note(f"picture found {kind}")
                return path
        return base / written


def decide_boxes(path: Path, report: Report) -> Boxes:
    """How the boxes of a file are to be read: by what contradicts each reading, then by the median IoU with the masks' own boxes; told in the report."""
    broken = {"xyxy": 0, "xywh": 0}
    fits: dict[str, list[float]] = {"xyxy": [], "xywh": []}
    total = 0
    for row in _rows(path):
        for entry in row["instances"]:
            box, mask = entry.get("bbox"), entry.get("mask")
            if not box or len(box) != 4 or not mask:
                continue
            total += 1
            height, width = mask["size"]
            broken["xyxy"] += box[2] < box[0] or box[3] < box[1] or box[2] > width + 1 or box[3] > height + 1
            broken["xywh"] += box[0] + box[2] > width + 1 or box[1] + box[3] > height + 1
            if len(fits["xyxy"]) < SAMPLED and (around := _tight(mask)) is not None:
                fits["xyxy"].append(overlap(_as_xyxy(box, "xyxy"), around))
                fits["xywh"].append(overlap(_as_xyxy(box, "xywh"), around))
    medians = {name: median(values) if values else 0.0 for name, values in fits.items()}
    chosen: Boxes = "xyxy" if (-broken["xyxy"], medians["xyxy"]) >= (-broken["xywh"], medians["xywh"]) else "xywh"
    report.remarks.append(
        f"{path.name}: boxes are read as {chosen}. Of {total} boxes {broken['xyxy']} contradict xyxy and {broken['xywh']} xywh; "
        f"median IoU with the masks {medians['xyxy']:.2f} as xyxy, {medians['xywh']:.2f} as xywh."
    )
    return chosen


def _as_xyxy(box: Sequence[Any], reading: Boxes) -> tuple[float, float, float, float]:
    x, y, third, fourth = (float(value) for value in box)
    return (x, y, third, fourth) if reading == "xyxy" else (x, y, x + third, y + fourth)


def _tight(mask: dict[str, Any]) -> tuple[float, float, float, float] | None:
    try:
        pixels = decode_rle({"size": list(mask["size"]), "counts": mask["counts"]}).numpy()
    except (ValueError, TypeError, KeyError, AttributeError):
        return None  # reported where the record is made
    return tight(pixels) if pixels.any() else None


def _opened(path: Path) -> parquet.ParquetFile:
    try:
        file = parquet.ParquetFile(path)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise ValueError(f"{path} cannot be read as parquet: {describe(path)}.") from error
    if lost := {"image_id", "image_path", "instances"} - set(file.schema_arrow.names):
        raise ValueError(f"{path} lacks the columns {sorted(lost)} of GeoPixInstruct; it has {file.schema_arrow.names}.")
    return file


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows with ``instances`` as a list of objects, in which form it may be stored."""
    for batch in _opened(path).iter_batches(batch_size=64, columns=["image_id", "image_path", "instances"]):
        for row in batch.to_pylist():
            instances = row["instances"] or []
            if isinstance(instances, dict):
                instances = [dict(zip(instances, values, strict=True)) for values in zip(*instances.values(), strict=True)]
            yield row | {"instances": instances}
