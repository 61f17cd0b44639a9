"""VRSBench: references with boxes, captions and questions on patches of DOTA and DIOR."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from geopix.data.records import Record
from geopix.data.sources.conversations import boxes_of, conversation_records, locate
from geopix.data.sources.files import first_of, grouped, read_json, read_text
from geopix.data.sources.pieces import Box, Picture, box_of, expression, open_picture, percent, record_of
from geopix.data.sources.reader import About, Reader, Report, compare_counts
from geopix.data.sources.wording import Talk, captions, located, question

Task = Literal["all", "refer", "caption", "vqa"]


@dataclass(frozen=True)
class VRSBench(Reader):
    """References, captions and questions. References are ``refer/unique`` or ``refer/non_unique`` where the file says which, and ``refer/box`` elsewhere.

    Layout: ``Images_SPLIT/`` (also nested twice) and, with ``form: released``, ``VRSBench_train.json`` for train and ``VRSBench_EVAL_{referring,Cap,vqa}.json``
    (or ``RSBench_EVAL_...``) for val; with ``form: annotations``, ``Annotations_SPLIT/STEM.json``, from which both were made.

    Args:
        root: the folder that holds them.
        split: train or val.
        task: all, or one of refer, caption and vqa.
        form: which of the two forms is read.
    """

    root: Path
    split: Literal["train", "val"] = "train"
    task: Task = "all"
    form: Literal["released", "annotations"] = "released"

    about = About(
        name="VRSBench",
        publication="arXiv 2406.12384; lx709/VRSBench",
        licence="CC BY 4.0 for the annotations; pictures under the terms of DOTA (academic use) and DIOR (CC BY-NC 4.0)",
        protocol="Acc@0.5 and 0.7 (unique, not unique, all), the authors on the grid of whole percents; questions by a GPT-4 judge; captions BLEU, METEOR, "
        "ROUGE-L, CIDEr, CLAIR",
        splits={"train": 20264, "val": 9350},
        uncertain=(
            "Boxes are rounded to whole percents, up to 5 px of 512.",
            "Numbers above 100 occur (154 was seen) and are cut off.",
            "Some annotation files are not valid JSON; they are left out and counted.",
            "Answers are scored here by exact match, not by a judge.",
        ),
    )

    def records(self, report: Report) -> Iterator[Record]:
        """See :class:`geopix.data.sources.reader.Reader`."""
        pictures = first_of(self.root, [f"Images_{self.split}"], self.about.name)
        folders = [pictures, pictures / f"Images_{self.split}"]
        if self.form == "annotations":
            yield from self._annotated(folders, report)
        elif self.split == "train":
            document = read_json(first_of(self.root, ["VRSBench_train.json", "RSBench_train.json"], self.about.name), report)
            compare_counts(self.about, self.split, len({str(entry.get("image")) for entry in document if isinstance(entry, dict)}), report)
            for record in conversation_records(self.about, document, folders, self.split, report):
                kept = [talk for talk in record["dialogues"] if self.task in ("all", talk["task"].split("/")[0])]
                if kept:
                    yield record | {"dialogues": kept}
        else:
            yield from self._scored(folders, report)

    def _scored(self, folders: list[Path], report: Report) -> Iterator[Record]:
        """From the files of the benchmark, whose pictures are the same."""
        entries: list[dict[str, Any]] = []
        for task, name in (("refer", "referring"), ("caption", "Cap"), ("vqa", "vqa")):
            if self.task in ("all", task):
                path = first_of(self.root, [f"VRSBench_EVAL_{name}.json", f"RSBench_EVAL_{name}.json"], self.about.name)
                entries += [entry | {"_task": task} for entry in read_json(path, report) if isinstance(entry, dict)]
        by_picture = grouped(entries, lambda entry: str(entry.get("image_id", "")))
        if self.task == "all":
            compare_counts(self.about, self.split, len(by_picture), report)
        for name, members in by_picture.items():
            picture = open_picture(locate(name, folders, report), report, name)
            if picture is None:
                continue
            seen: list[str] = []
            talks = [talk for entry in members if (talk := _scored(entry, picture, seen, report)) is not None]
            if talks:
                yield record_of(self.about, picture, Path(name).stem, self.split, talks)

    def _annotated(self, folders: list[Path], report: Report) -> Iterator[Record]:
        annotations = first_of(self.root, [f"Annotations_{self.split}"], self.about.name)
        paths = sorted(annotations.rglob("*.json"))
        compare_counts(self.about, self.split, len(paths), report)
        for path in paths:
            try:
                entry = json.loads(read_text(path, report))
                name = str(entry["image"])
            except (ValueError, KeyError, TypeError) as error:
                report.leave_out("damaged record", path.stem, f"{path.name} is not what it should be: {type(error).__name__}: {error}")
                continue
            picture = open_picture(locate(name, folders, report), report, name)
            if picture is None:
                continue
            talks = self._said(entry, picture, report)
            if talks:
                yield record_of(self.about, picture, Path(name).stem, self.split, talks)

    def _said(self, entry: dict[str, Any], picture: Picture, report: Report) -> list[Talk]:
        talks: list[Talk] = []
        key, seen = Path(str(entry["image"])).stem, list[str]()
        for thing in entry.get("objects", []) if self.task in ("all", "refer") else []:
            if not str(thing.get("referring_sentence", "")).strip():
                report.note("object without an expression")
                continue
            text = expression(thing["referring_sentence"], seen, picture.where, report)
            box = _fractions(thing.get("obj_coord", ()), picture, report)
            if text is not None and box is not None:
                seen.append(text)
                talks.append(located(text, key, [box]))
        if self.task in ("all", "caption") and str(entry.get("caption", "")).strip():
            talks += captions([" ".join(entry["caption"].split())], key, each=True, kind="detailed")
        for asked in entry.get("qa_pairs", []) if self.task in ("all", "vqa") else []:
            if (talk := _asked(str(asked.get("question", "")), str(asked.get("answer", "")), str(asked.get("type", "")), picture, report)) is not None:
                talks.append(talk)
        return talks


def _fractions(box: Any, picture: Picture, report: Report) -> Box | None:
    """A box in fractions of the picture as percent; None, and left out, where it is none."""
    if not isinstance(box, list) or len(box) != 4:
        report.leave_out("answer without a box", picture.where, f"expected four numbers, found {str(box)[:60]}")
        return None
    pixels = [float(value) * side for value, side in zip(box, (picture.width, picture.height) * 2, strict=True)]
    cut = box_of(pixels, picture, report)
    if cut is None:
        report.leave_out("box without area in the picture", picture.where, str(box))
        return None
    return percent(cut, picture)


def _asked(text: str, answer: str, kind: str, picture: Picture, report: Report) -> Talk | None:
    if not text.strip() or not answer.strip():
        report.leave_out("question without an answer" if text.strip() else "empty text", picture.where, f"{text[:60]!r} is answered by {answer[:60]!r}")
        return None
    return question(kind, text, answer)


def _scored(entry: dict[str, Any], picture: Picture, seen: list[str], report: Report) -> Talk | None:
    text, truth, key = str(entry.get("question", "")), str(entry.get("ground_truth", "")), Path(str(entry["image_id"])).stem
    if entry["_task"] == "vqa":
        return _asked(text, truth, str(entry.get("type", "")), picture, report)
    if entry["_task"] == "caption":
        return captions([" ".join(truth.split())], key, each=False, kind="detailed")[0] if truth.strip() else None
    boxes = boxes_of(truth, picture, report)
    said = expression(text, seen, picture.where, report)
    if not boxes:
        report.leave_out("answer without a box", picture.where, f"{text[:60]!r} is answered by {truth[:60]!r}")
    if said is None or not boxes:
        return None
    seen.append(said)
    talk = located(said, key, boxes)
    unique = entry.get("unique", entry.get("is_unique"))
    return talk if unique is None else talk | {"task": "refer/unique" if unique else "refer/non_unique"}
