"""EarthReason: questions that take thought, one mask per picture, and pictures without what is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from geopix.data.records import Record, dialogue
from geopix.data.sources.files import find_picture, read_json, require, tell_unpaired
from geopix.data.sources.pieces import Picture, from_mask, open_picture, read_values, record_of
from geopix.data.sources.reader import About, Reader, Report, compare_counts
from geopix.data.sources.wording import Talk, small
from geopix.types import SEG


@dataclass(frozen=True)
class EarthReason(Reader):
    """Each question is a single reference; the explanation stands in front of its mask. Empty targets are ``segment/absent``.

    Layout: ``SPLIT/{images,labels,QAs}/``, paired by stem. A target is empty where the answers are, or the mask is; that both agree is not assumed.

    Args:
        root: the folder that holds the splits.
        split: train, val or test.
        first_question: only the first question of each picture, as SegEarth-R1 is scored; all of them otherwise.
    """

    root: Path
    split: Literal["train", "val", "test"] = "train"
    first_question: bool = False

    about = About(
        name="EarthReason",
        publication="arXiv 2504.09644; earth-insights/EarthReason",
        licence="Apache-2.0; pictures of AID and fMoW",
        protocol="gIoU and cIoU of LISA on val and test, nothing drawn for an empty target counts 1; SegEarth-R1 asks the first question only",
        splits={"train": 2371, "val": 1135, "test": 1928},
        uncertain=("About 200 pictures have an empty target.", "The content of a real QA file was not seen; its keys are certain."),
    )

    def records(self, report: Report) -> Iterator[Record]:
        """See :class:`geopix.data.sources.reader.Reader`."""
        pictures, labels, asked = require(self.root, [f"{self.split}/{part}" for part in ("images", "labels", "QAs")], self.about.name)
        paths = sorted(asked.glob("*.json"))
        compare_counts(self.about, self.split, len(paths), report)
        tell_unpaired(pictures, (path.stem for path in paths), report, "QAs/*.json")
        for path in paths:
            picture = open_picture(find_picture(pictures, path.stem), report, path.stem)
            if picture is None:
                continue
            try:
                document = read_json(path, report, dict)
            except ValueError as error:
                report.leave_out("damaged record", path.stem, str(error))
                continue
            values = read_values(find_picture(labels, path.stem), report, path.stem)
            if values is None:
                continue
            record = self._record(picture, path.stem, document, foreground_of(values), report)
            if record is not None:
                yield record

    def _record(self, picture: Picture, key: str, document: dict[str, Any], mask: np.ndarray, report: Report) -> Record | None:
        questions = [text for each in document.get("questions", []) if (text := " ".join(str(each).split())) and SEG not in text]
        answers = [text for each in document.get("answer", document.get("answers", [])) if (text := " ".join(str(each).split())) and SEG not in text]
        if not questions:
            report.leave_out("empty text", key, f"no question; found the fields {sorted(document)}")
            return None
        questions = questions[:1] if self.first_question else list(dict.fromkeys(questions))
        if bool(answers) != bool(mask.any()):
            report.note("empty answer and mask disagree")
        if not answers or not mask.any():
            report.note("empty target")
            talks = [dialogue("segment/absent", [(f"[segment] {small(text)}", "It is not in this image.")]) for text in questions]
            return record_of(self.about, picture, key, self.split, talks)
        made = from_mask(picture, 1, mask, report)
        talks = [_talk(text, answers[number % len(answers)]) for number, text in enumerate(questions)]
        return None if made is None else record_of(self.about, picture, key, self.split, talks, [made])


def _talk(text: str, answer: str) -> Talk:
    answer = answer if answer.endswith((".", "!", "?")) else f"{answer}."
    return dialogue("segment/single", [(f"[segment] {small(text)}", f"{answer} It is {SEG}.")], [[1]])


def foreground_of(values: np.ndarray) -> np.ndarray:
    """Any value but 0 is the target."""
    return np.asarray((values if values.ndim == 2 else values[..., :3].max(axis=2)) > 0)
