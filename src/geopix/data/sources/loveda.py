"""LoveDA: land cover of cities and countryside."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from geopix.data.records import Record, instance
from geopix.data.sources.files import require, tell_unpaired
from geopix.data.sources.pieces import open_picture, read_values, record_of
from geopix.data.sources.reader import About, Reader, Report, compare_counts
from geopix.data.sources.wording import group

CLASSES = {
    2: ("building", "all the buildings", "are"), 3: ("road", "all the roads", "are"), 4: ("water", "the water", "is"),
    5: ("barren", "the barren land", "is"), 6: ("forest", "the forest", "is"), 7: ("agriculture", "the farmland", "is"),
}  # fmt: skip
"""Values of the mask with class, expression and verb; 1 is background, 0 no data."""


@dataclass(frozen=True)
class LoveDA(Reader):
    """Each class of a picture but background is one group reference.

    Layout: ``{Train,Val}/{Urban,Rural}/{images_png,masks_png}/N.png``. The test part has no masks.

    Args:
        root: the folder that holds the splits.
        split: train or val.
        domain: all, Urban or Rural.
    """

    root: Path
    split: Literal["train", "val"] = "train"
    domain: Literal["all", "Urban", "Rural"] = "all"

    about = About(
        name="LoveDA",
        publication="arXiv 2110.08733; Junjue-Wang/LoveDA",
        licence="CC BY-NC-SA 4.0, academic use",
        protocol="mIoU over seven classes, pixels of 0 (no data) left out; here they are outside every mask",
        splits={"train": 2522, "val": 1669},
        uncertain=("The numbers of pictures in Urban and Rural do not collide, as far as is known; keys are told apart where they do.",),
    )

    def records(self, report: Report) -> Iterator[Record]:
        """See :class:`geopix.data.sources.reader.Reader`."""
        domains = ("Urban", "Rural") if self.domain == "all" else (self.domain,)
        folders = require(self.root, [f"{self.split.capitalize()}/{domain}/images_png" for domain in domains], self.about.name)
        paths = [path for folder in folders for path in sorted(folder.glob("*.png"), key=lambda path: (len(path.stem), path.stem))]
        if self.domain == "all":
            compare_counts(self.about, self.split, len(paths), report)
        for folder in folders:
            if (masks := folder.parent / "masks_png").is_dir():
                tell_unpaired(masks, (path.stem for path in paths if path.parent == folder), report, "picture in images_png")
        for path in paths:
            picture = open_picture(path, report, path.stem)
            file = path.parents[1] / "masks_png" / path.name
            values = read_values(file, report, path.stem)
            if picture is None or values is None:
                continue
            if values.shape != (picture.height, picture.width):
                told = f"the mask is {values.shape}, the picture {picture.height} x {picture.width} (rows x columns)"
                report.leave_out("mask of another size than its picture", path.stem, told)
                continue
            found = np.unique(values).tolist()
            if 0 in found:
                report.note("picture with pixels of no data")
            if unknown := [value for value in found if value > 7]:
                report.note("unknown class")
                report.leave_out("mask with unknown values", path.stem, f"values {unknown[:8]} beside 0 to 7")
                continue
            known = [value for value in found if value in CLASSES]
            instances = [instance(value, {"png": str(file.absolute()), "value": value}, of_class=CLASSES[value][0]) for value in known]
            talks = [group(CLASSES[value][1], path.stem, [value], CLASSES[value][2]) for value in known]
            if talks:
                yield record_of(self.about, picture, path.stem, self.split, talks, instances)
            else:
                report.leave_out("picture without usable masks", path.stem, "background alone")
