"""RSVQA: questions about low-resolution (Sentinel-2) and high-resolution (aerial) pictures."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from geopix.data.records import Record
from geopix.data.sources.files import find_picture, first_of, read_json
from geopix.data.sources.pieces import open_picture, record_of
from geopix.data.sources.reader import About, Reader, Report, compare_counts
from geopix.data.sources.wording import question

_LICENCE = "CC BY 4.0 (from memory of its page; check before redistribution)"
_UNCERTAIN = ("Papers on language models leave out count and area; the kinds are kept here, so that a mix can.",)


@dataclass(frozen=True)
class RSVQALR(Reader):
    """RSVQA-LR: one record per picture with all its questions; counts become the ranges that are scored.

    Layout: ``Images_LR/ID.tif``, ``LR_split_SPLIT_{images,questions,answers}.json``.

    Args:
        root: the folder that holds them.
        split: train, val or test.
        ranges: counts as "between 10 and 100" and so on, as the authors score them; false keeps the numbers.
    """

    root: Path
    split: Literal["train", "val", "test"] = "train"
    ranges: bool = True

    about = About(
        name="RSVQA-LR",
        publication="arXiv 2003.07333; zenodo 6344334",
        licence=_LICENCE,
        protocol="accuracy per kind, their mean (AA) and over all (OA); language models: presence, comp and rural_urban alone",
        uncertain=(*_UNCERTAIN, "772 pictures and 77,232 questions in 77.8 / 11.1 / 11.1 % are published, no exact counts per split."),
    )

    def records(self, report: Report) -> Iterator[Record]:
        """See :class:`geopix.data.sources.reader.Reader`."""
        yield from _records(self, "Images_LR", f"LR_split_{self.split}", ("count",) if self.ranges else (), report)


@dataclass(frozen=True)
class RSVQAHR(Reader):
    """RSVQA-HR: one record per picture with all its questions; areas become the ranges that are scored, counts stay numbers.

    Layout: ``Data/ID.tif``, ``USGS_split_SPLIT_{images,questions,answers}.json``.

    Args:
        root: the folder that holds them.
        split: train, val, test, or test_phili (Philadelphia).
        ranges: areas as "between 10m2 and 100m2" and so on, as the authors score them; false keeps the numbers.
    """

    root: Path
    split: Literal["train", "val", "test", "test_phili"] = "train"
    ranges: bool = True

    about = About(
        name="RSVQA-HR",
        publication="arXiv 2003.07333; zenodo 6344367",
        licence=_LICENCE,
        protocol="accuracy per kind, AA and OA, on both test parts; language models: presence and comp alone (62,554 questions of test_phili)",
        uncertain=(*_UNCERTAIN, "10,659 pictures and 1,066,316 questions in 61.5 / 11.2 / 20.5 / 6.8 % are published, no exact counts per split."),
    )

    def records(self, report: Report) -> Iterator[Record]:
        """See :class:`geopix.data.sources.reader.Reader`."""
        yield from _records(self, "Data", f"USGS_split_{self.split}", ("area",) if self.ranges else (), report)


def _records(reader: Reader, folder: str, prefix: str, ranged: tuple[str, ...], report: Report) -> Iterator[Record]:
    pictures = first_of(reader.root, [folder, "images"], reader.about.name)
    images, questions, answers = (_active(reader.root / f"{prefix}_{part}.json", part, report) for part in ("images", "questions", "answers"))
    compare_counts(reader.about, reader.split, len(questions), report)
    for number, image in images.items():
        picture = open_picture(find_picture(pictures, f"{number}.tif", report), report, f"image {number}")
        if picture is None:
            continue
        dialogues = []
        for asked in image.get("questions_ids", []):
            where, entry = f"question {asked}", questions.get(asked)
            found = [answers[each] for each in (entry or {}).get("answers_ids", []) if each in answers]
            text = " ".join(str((entry or {}).get("question", "")).split())
            answer = str(found[0].get("answer", "")).strip().rstrip("?.") if found else ""
            if entry is None or not text:
                report.leave_out("empty text", where, f"image {number} names it, but it is not active or has no text")
            elif not answer:
                report.leave_out("question without an answer", where, f"none of its answers {entry.get('answers_ids')} is active and holds a word")
            else:
                kind = str(entry.get("type", "open"))
                dialogues.append(question(kind, text, in_range(answer) if kind in ranged else answer))
        if dialogues:
            yield record_of(reader.about, picture, str(number), reader.split, dialogues)
        else:
            report.leave_out("picture without usable questions", picture.where, "none of its questions is active and answered")


def _active(path: Path, part: str, report: Report) -> dict[int, dict[str, Any]]:
    """The entries of a file by id: it is padded with inactive ones, which belong to other splits."""
    document = read_json(path, report, dict)
    if not isinstance(document.get(part), list):
        raise ValueError(f"{path}: expected a list {part!r}, found the fields {sorted(document)[:8]}.")
    return {int(entry["id"]): entry for entry in document[part] if entry.get("active")}


def in_range(answer: str) -> str:
    """A number, or an area in square metres, as the range that RSVQA scores.

    >>> in_range("12"), in_range("0"), in_range("10m2"), in_range("1200m2"), in_range("yes")
    ('between 10 and 100', '0', 'between 0m2 and 10m2', 'more than 1000m2', 'yes')
    """
    read = re.fullmatch(r"(\d+)(m2)?", answer)
    if read is None or int(read[1]) == 0:
        return answer
    unit = read[2] or ""
    for low, high in ((0, 10), (10, 100), (100, 1000)):
        if int(read[1]) <= high:
            return f"between {low}{unit} and {high}{unit}"
    return f"more than 1000{unit}"
