"""iSAID: instances on pictures of DOTA, as the COCO file of its patches or as the colour pictures of whole scenes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from geopix.data.records import Record
from geopix.data.sources.coco import coco_records, load_coco
from geopix.data.sources.files import require
from geopix.data.sources.names import class_name
from geopix.data.sources.pieces import Picture, from_mask, open_picture, read_values, record_of
from geopix.data.sources.reader import About, Reader, Report
from geopix.data.sources.wording import from_classes

COLOURS = {
    (0, 0, 63): "ship", (0, 63, 63): "storage tank", (0, 63, 0): "baseball diamond", (0, 63, 127): "tennis court", (0, 63, 191): "basketball court",
    (0, 63, 255): "ground track field", (0, 127, 63): "bridge", (0, 127, 127): "large vehicle", (0, 0, 127): "small vehicle", (0, 0, 191): "helicopter",
    (0, 0, 255): "swimming pool", (0, 191, 127): "roundabout", (0, 127, 191): "soccer ball field", (0, 127, 255): "plane", (0, 100, 155): "harbor",
}  # fmt: skip


@dataclass(frozen=True)
class ISAID(Reader):
    """Every class of a picture is one expression.

    Layout: ``SPLIT/images/`` with ``SPLIT/instancesonly_filtered_SPLIT.json`` (patches), or else with ``*_instance_id_RGB.png`` and
    ``*_instance_color_RGB.png`` beside the pictures (whole scenes).

    Args:
        root: the folder that holds the splits.
        split: train or val.
    """

    root: Path
    split: Literal["train", "val"] = "train"

    about = About(
        name="iSAID",
        publication="arXiv 1905.12886; CAPTAIN-WHU/iSAID_Devkit",
        licence="academic use only",
        protocol="instance segmentation: AP of COCO",
        uncertain=(
            "1,411 scenes are published for train and 458 for val; the number of patches depends on how they are cut.",
            "The README calls the file instance_only_filtered; both names are tried.",
        ),
    )

    def records(self, report: Report) -> Iterator[Record]:
        """See :class:`geopix.data.sources.reader.Reader`."""
        folder, pictures = require(self.root, [self.split, f"{self.split}/images"], self.about.name)
        names = [f"{form}_filtered_{self.split}.json" for form in ("instancesonly", "instance_only")]
        path = next((folder / name for name in names if (folder / name).is_file()), None)
        if path is None:
            yield from self._scenes(pictures, report)
            return
        document = load_coco(path, report)
        classes = {entry["id"]: name for entry in document.get("categories", []) if (name := class_name(entry["name"], report)) is not None}
        for record in coco_records(document, pictures, document["images"], classes, report):
            origin = {"split": self.split, "licence": self.about.licence, "source": f"{self.about.name} ({self.about.publication})"}
            yield {"image": record["image"], "key": record["key"]} | origin | {"instances": record["instances"], "dialogues": record["dialogues"]}

    def _scenes(self, pictures: Path, report: Report) -> Iterator[Record]:
        paths = sorted(path for path in pictures.glob("*.png") if "_instance_" not in path.stem)
        if not any(pictures.glob("*_instance_id_RGB.png")):
            expected = f"{self.split}/instancesonly_filtered_{self.split}.json nor {self.split}/images/*_instance_id_RGB.png"
            raise FileNotFoundError(f"{self.root} is not laid out as {self.about.name}: neither {expected} is there.")
        for path in paths:
            picture = open_picture(path, report, path.stem)
            ids, colours = (read_values(path.with_name(f"{path.stem}_instance_{part}_RGB.png"), report, path.stem) for part in ("id", "color"))
            if picture is None or ids is None or colours is None:
                continue
            instances = _instances(picture, ids, colours, report)
            if talks := from_classes(instances, path.stem):
                yield record_of(self.about, picture, path.stem, self.split, talks, instances)
            else:
                report.leave_out("picture without usable masks", path.stem, "no instance in it")


def _instances(picture: Picture, ids: np.ndarray, colours: np.ndarray, report: Report) -> list[dict[str, Any]]:
    """Instances from their numbers, written as red + 256 green + 65536 blue, and from the colours of their classes."""
    if ids.shape[:2] != colours.shape[:2] or ids.ndim != 3 or colours.ndim != 3:
        report.leave_out("mask of another size than its picture", picture.where, f"numbers are {ids.shape}, colours {colours.shape}")
        return []
    numbers = ids[..., :3].astype(np.int64) @ np.array([1, 256, 65536])
    found = []
    for number in np.unique(numbers[numbers > 0]).tolist():
        mask = numbers == number
        seen, counts = np.unique(colours[mask][:, :3], axis=0, return_counts=True)
        red, green, blue = (int(value) for value in seen[counts.argmax()])
        name = COLOURS.get((red, green, blue))
        if name is None:
            report.note("unknown class")
        found.append(from_mask(picture, number, mask, report, of_class=None if name is None else class_name(name, report)))
    return [one for one in found if one is not None]
