"""RefSegRS and RISBench: a text file with one picture and one phrase per line, and one mask picture for each."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from geopix.data.records import Record
from geopix.data.sources.files import find_picture, grouped, read_lines, require
from geopix.data.sources.names import known_class
from geopix.data.sources.pieces import Picture, expression, foreground, from_mask, open_picture, read_values, record_of
from geopix.data.sources.reader import About, Reader, Report, compare_counts
from geopix.data.sources.wording import group, references

Split = Literal["train", "val", "test"]
FILE_FIRST = r"([^\s,]+)[\s,]+(.+)"
"""A line that begins with the name of a file; blanks, tabs or a comma part it from the phrase, which may hold commas itself."""


@dataclass(frozen=True)
class RefSegRS(Reader):
    """Phrases for everything they fit ("road", "car"), often half of the picture: group references.

    Layout: ``images/ID.tif``, ``masks/ID.tif``, ``output_phrase_SPLIT.txt`` with lines ``ID phrase``; the picture is stored anew for every phrase.

    Args:
        root: the folder that holds them.
        split: train, val or test.
    """

    root: Path
    split: Split = "train"

    about = About(
        name="RefSegRS",
        publication="arXiv 2306.08625; zhu-xlab/rrsis",
        licence="CC BY 4.0",
        protocol="oIoU, mIoU and P@0.5 to 0.9",
        splits={"train": 2172, "val": 431, "test": 1817},
        counted="dialogues",
        uncertain=("413 is also quoted for val; only 431 adds up to 4,420.", "Real lines were not seen; older files may hold one more field."),
    )

    def records(self, report: Report) -> Iterator[Record]:
        """See :class:`geopix.data.sources.reader.Reader`."""
        listed, pictures, masks = require(self.root, [f"output_phrase_{self.split}.txt", "images", "masks"], self.about.name)
        for picture, name, texts, made in _phrased(self, listed, r"(\d+)\s+(.+)", pictures, masks, report):
            made |= {"class": known_class(texts[0]) if len(texts) == 1 else None}
            yield record_of(self.about, picture, name, self.split, [group(text, name, [1], "is") for text in texts], [made])


@dataclass(frozen=True)
class RISBench(Reader):
    """Single references on pictures of VRSBench.

    Layout: ``img_rgb/FILE``, ``mask/FILE`` (or the same stem with another ending), ``output_phrase_SPLIT.txt`` with lines ``FILE phrase``.

    Args:
        root: the folder that holds them.
        split: train, val or test.
    """

    root: Path
    split: Split = "train"

    about = About(
        name="RISBench",
        publication="arXiv 2410.08613; HIT-SIRS/CroBIM",
        licence="CC BY 4.0 as claimed; pictures under the terms of DOTA (academic use) and DIOR (CC BY-NC 4.0)",
        protocol="oIoU, mIoU and P@0.5 to 0.9",
        splits={"train": 26300, "val": 10013, "test": 16159},
        counted="dialogues",
        uncertain=(
            "Its test seems to be VRSBench's val, its train and val VRSBench's train: never train on one and test on the other.",
            "Real lines and the ending of the files were not seen.",
            "Training pictures may stand in val as well; they are counted.",
            "Others take any value of a mask above 0 as its target; here it is above 127, and other values than 0 and 255 are counted.",
        ),
    )

    def records(self, report: Report) -> Iterator[Record]:
        """See :class:`geopix.data.sources.reader.Reader`."""
        listed, pictures, masks = require(self.root, [f"output_phrase_{self.split}.txt", "img_rgb", "mask"], self.about.name)
        others = [self.root / f"output_phrase_{split}.txt" for split in ("train", "val", "test") if split != self.split]
        elsewhere = {Path(name).stem for path in others if path.is_file() for name, _ in _entries(path, FILE_FIRST, Report())}
        for picture, name, texts, made in _phrased(self, listed, FILE_FIRST, pictures, masks, report):
            key = Path(name).stem
            if key in elsewhere:
                report.note("picture in two splits")
            yield record_of(self.about, picture, key, self.split, references([(text, 1) for text in texts], key), [made])


def _phrased(
    reader: Reader, listed: Path, pattern: str, pictures: Path, masks: Path, report: Report
) -> Iterator[tuple[Picture, str, list[str], dict[str, Any]]]:
    """Each picture with its name, its phrases and the instance 1 that they all mean."""
    entries = list(_entries(listed, pattern, report))
    compare_counts(reader.about, reader.split, len(entries), report)
    for name, members in grouped(entries, lambda entry: entry[0]).items():
        picture = open_picture(find_picture(pictures, name, report), report, name)
        values = read_values(find_picture(masks, name, report), report, name) if picture is not None else None
        if picture is None or values is None:
            continue
        texts: list[str] = []
        for _, text in members:
            if (said := expression(text, texts, picture.where, report)) is not None:
                texts.append(said)
        made = from_mask(picture, 1, foreground(values, report), report)
        if made is not None and texts:
            yield picture, name, texts, made


def _entries(path: Path, pattern: str, report: Report) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(read_lines(path, report), start=1):
        read = re.fullmatch(pattern, line)
        if read is None:
            report.leave_out("damaged record", f"{path.name}, entry {number}", f"expected a picture and a phrase, found {line[:80]!r}")
        else:
            yield read[1], read[2]
