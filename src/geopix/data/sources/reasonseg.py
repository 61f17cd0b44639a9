"""ReasonSeg: one question or phrase per picture, with polygons in labelme's form."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from geopix.data.records import Record, dialogue
from geopix.data.sources.files import find_picture, read_json, require, tell_unpaired
from geopix.data.sources.pieces import Picture, expression, from_mask, open_picture, record_of
from geopix.data.sources.reader import About, Reader, Report, compare_counts
from geopix.data.sources.wording import request, small
from geopix.types import SEG


@dataclass(frozen=True)
class ReasonSeg(Reader):
    """Single references. Polygons are drawn from the largest to the smallest with their outline, as LISA draws them; what is to be ignored is not part.

    Layout: ``SPLIT/NAME.jpg`` and ``SPLIT/NAME.json``.

    Args:
        root: the folder that holds the splits.
        split: train, val or test.
    """

    root: Path
    split: Literal["train", "val", "test"] = "train"

    about = About(
        name="ReasonSeg",
        publication="arXiv 2308.00692; dvlab-research/LISA",
        licence="not stated; pictures of OpenImages and ScanNet v2",
        protocol="gIoU and cIoU of LISA, pixels to be ignored left out of both; here they count as background",
        splits={"train": 239, "val": 200, "test": 779},
        uncertain=("The explanations of explanatory/train.json are not read.",),
    )

    def records(self, report: Report) -> Iterator[Record]:
        """See :class:`geopix.data.sources.reader.Reader`."""
        (folder,) = require(self.root, [self.split], self.about.name)
        paths = sorted(folder.glob("*.json"))
        if not paths:
            raise FileNotFoundError(f"{folder} is not laid out as {self.about.name}: it holds no *.json beside its pictures.")
        compare_counts(self.about, self.split, len(paths), report)
        tell_unpaired(folder, (path.stem for path in paths), report, "JSON of the same name")
        for path in paths:
            picture = open_picture(find_picture(folder, path.stem), report, path.stem)
            if picture is None:
                continue
            try:
                document = read_json(path, report, dict)
                mask = _drawn(document["shapes"], picture, report)
            except (ValueError, KeyError, TypeError, IndexError) as error:
                report.leave_out("damaged record", path.stem, f"{path.name}: {type(error).__name__}: {error}")
                continue
            made, seen = from_mask(picture, 1, mask, report), list[str]()
            for text in document.get("text", []):
                if (said := expression(text, seen, picture.where, report)) is not None:
                    seen.append(said)
            if made is None or not seen:
                continue
            sentence = bool(document.get("is_sentence", False))
            prompts = (
                [f"[segment] {small(' '.join(str(text).split()))}" for text in document["text"]] if sentence else [request(text, path.stem) for text in seen]
            )
            talks = [dialogue("segment/single", [(prompt, f"It is {SEG}.")], [[1]]) for prompt in dict.fromkeys(prompts)]
            yield record_of(self.about, picture, path.stem, self.split, talks, [made])


def _drawn(shapes: list[dict[str, Any]], picture: Picture, report: Report) -> np.ndarray:
    """Where the target is."""
    drawn = np.zeros((picture.height, picture.width), dtype=np.uint8)
    polygons = []
    for shape in shapes:
        label, points = str(shape["label"]).lower(), np.asarray(shape["points"], dtype=np.float64)
        if "flag" in label:
            continue
        if points.ndim != 2 or len(points) < 3:
            report.note("ring of fewer than three points")
            continue
        polygons.append((cv2.contourArea(points.astype(np.float32)), 255 if "ignore" in label else 1, points.astype(np.int32)))
    for _, value, corners in sorted(polygons, key=lambda polygon: -polygon[0]):
        cv2.fillPoly(drawn, [corners], value)
    if (drawn == 255).any():
        report.note("picture with pixels to be ignored")
    return np.asarray(drawn == 1)
