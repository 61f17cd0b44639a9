"""GeoPixelD: descriptions of a scene with a mask behind each thing that they name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from geopix.data.records import Record, dialogue
from geopix.data.sources.conversations import locate, turns_of
from geopix.data.sources.files import first_of, grouped, read_json
from geopix.data.sources.names import known_class
from geopix.data.sources.pieces import Picture, from_polygon, from_rle, open_picture, record_of
from geopix.data.sources.reader import About, Reader, Report
from geopix.data.sources.wording import Talk, small
from geopix.types import SEG


@dataclass(frozen=True)
class GeoPixelD(Reader):
    """Each description is one ``segment/grounded`` dialogue with as many masks as it names things.

    Layout: a JSON of conversations whose ``image`` and ``polygons`` are paths from ``root``.

    Args:
        root: folder that the paths start from.
        annotations: the JSON, from ``root`` unless absolute; the only ``*.json`` of ``root`` unless given.
        split: what the records are told to be part of.
    """

    root: Path
    annotations: Path | None = None
    split: Literal["train", "val", "test"] | None = "train"

    about = About(
        name="GeoPixelD",
        publication="arXiv 2501.13925; MBZUAI/GeoPixelD",
        licence="not stated; pictures of iSAID (DOTA, academic use)",
        protocol="grounded descriptions: AP50, mIoU of matched masks, recall, METEOR and CIDEr (GLaMM); here masks in the order of the text",
        uncertain=(
            "One real record was seen.",
            "The documentation calls the key polygon, data and code polygons; segmentation with RLE is read as well.",
            "Its test pictures are iSAID's val.",
        ),
    )

    def records(self, report: Report) -> Iterator[Record]:
        """See :class:`geopix.data.sources.reader.Reader`."""
        document = read_json(self._file(), report)
        usable = []
        for number, entry in enumerate(document):
            if isinstance(entry, dict) and entry.get("image") and isinstance(entry.get("conversations"), list):
                usable.append(entry)
            else:
                report.leave_out("damaged record", f"record {number}", f"expected an object with image and conversations, found {str(entry)[:80]}")
        for name, entries in grouped(usable, lambda entry: str(entry["image"])).items():
            picture = open_picture(locate(name, [self.root], report), report, name)
            if picture is None:
                continue
            instances: list[dict[str, Any]] = []
            talks = [talk for entry in entries if (talk := self._talk(entry, picture, instances, report)) is not None]
            if talks:
                yield record_of(self.about, picture, Path(name).stem, self.split, talks, instances)

    def _file(self) -> Path:
        if self.annotations is not None:
            return self.root / self.annotations
        found = sorted(self.root.glob("*.json"))
        return found[0] if len(found) == 1 else first_of(self.root, ["annotations.json", "train.json"], f"{self.about.name}; name its JSON as annotations")

    def _talk(self, entry: dict[str, Any], picture: Picture, instances: list[dict[str, Any]], report: Report) -> Talk | None:
        """The dialogue of an entry, whose instances are added; None, and left out, where masks and ``[SEG]`` do not agree."""
        turns = turns_of(entry["conversations"], picture.where, report)
        phrases = [phrase for _, answer in turns for phrase in _phrases(answer)]
        masks = self._masks(entry, picture, report)
        if not turns or masks is None:
            return None
        if len(masks) != len(phrases):
            report.leave_out("masks and [SEG] differ in number", picture.where, f"{len(masks)} masks for {len(phrases)} {SEG}")
            return None
        made = []
        for number, (mask, phrase) in enumerate(zip(masks, phrases, strict=True), start=len(instances)):
            of_class = known_class(re.sub(r"[-\s]*\d+$", "", phrase))
            rle = isinstance(mask, dict)
            made.append(from_rle(picture, number, mask, report, of_class=of_class) if rle else from_polygon(picture, number, mask, report, of_class=of_class))
        kept = [one for one in made if one is not None]
        if len(kept) < len(made):
            report.note("description with a lost mask")
            return None
        instances += kept
        spoken = [(f"[segment] {small(prompt)}", _plain(answer)) for prompt, answer in turns]
        return dialogue("segment/grounded", spoken, [[one["id"]] for one in kept])

    def _masks(self, entry: dict[str, Any], picture: Picture, report: Report) -> list[Any] | None:
        held = entry
        if isinstance(written := entry.get("polygons", entry.get("polygon")), str):
            path = self.root / written
            try:
                held = read_json(path, report, dict)
            except (FileNotFoundError, ValueError) as error:
                report.leave_out("missing mask" if not path.is_file() else "unreadable mask", picture.where, str(error))
                return None
        masks = held.get("polygons", held.get("polygon", held.get("segmentation")))
        if not isinstance(masks, list):
            report.leave_out("missing mask", picture.where, f"no polygons and no segmentation; found the fields {sorted(held)}")
            return None
        return masks


def _phrases(answer: str) -> list[str]:
    """For each ``[SEG]`` the phrase in front of it, empty where none is marked."""
    return [(re.findall(r"<p>([^<]*)</p>\s*$", part) or [""])[-1].strip() for part in answer.split(SEG)[:-1]]


def _plain(answer: str) -> str:
    return re.sub(r"\s+([.,;:?!])", r"\1", " ".join(re.sub(r"</?p>", " ", answer).split()))
